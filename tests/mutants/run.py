"""Break one rule at a time, and look for seeds of the simulated cluster that notice.

```
python tests/mutants/run.py                  # all, up to the first of 100 seeds that notices
python tests/mutants/run.py 20 holes         # up to 20 seeds, those whose names contain "holes"
python tests/mutants/run.py 100 "" --count   # in how many of 100 seeds each is noticed
```

Two run at a time. It changes no file. Exits with 1 if a broken rule was not noticed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from rules import MUTANTS, Mutant

ROOT = Path(__file__).parents[2]
# How many run at a time, and how long one may take.
AT_ONCE = 2
PATIENCE = 900

# Compiles the changed modules in the place of those on the disk, so that all others come from the cache.
SCRIPT = """
import json, logging, signal, sys
from importlib.machinery import SourceFileLoader

seeds, counts, sources = int(sys.argv[1]), sys.argv[2] == "count", json.loads(sys.stdin.read())
get_code = SourceFileLoader.get_code

def changed(loader, name):
    source = sources.pop(loader.path, None)
    return get_code(loader, name) if source is None else compile(source, loader.path, "exec")

def too_long(*_):
    # Not an `Exception`, which the app would handle.
    raise KeyboardInterrupt("it does not end")

SourceFileLoader.get_code = changed
from cluster.test_seeds import run
assert not sources, f"not imported: {list(sources)}"
logging.disable(logging.CRITICAL)
signal.signal(signal.SIGALRM, too_long)
first, found = None, 0
for seed in range(seeds):
    signal.alarm(60)
    try:
        run(seed)
    except (Exception, KeyboardInterrupt) as error:
        found += 1
        if first is None:
            first = seed, (str(error).splitlines() or [repr(error)])[0][:150]
        if not counts:
            break
    signal.alarm(0)
print(json.dumps([first, found]))
"""


def sources_of(mutant: Mutant) -> dict[str, str]:
    """Return the changed modules by their paths."""
    sources: dict[str, str] = {}
    for file, before, after in ((mutant.file, mutant.before, mutant.after), *mutant.more):
        path = str(ROOT / "src" / "symphony" / file)
        text = sources.get(path) or Path(path).read_text()
        if text.count(before) != 1:
            raise ValueError(f"{before!r} is {text.count(before)} times in {file}")
        sources[path] = text.replace(before, after)
    return sources


def notice(mutant: Mutant, seeds: int, counts: bool) -> tuple[bool, str]:
    """Return whether a rule that is broken is noticed, and where."""
    try:
        sources = sources_of(mutant)
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, str(seeds), "count" if counts else "first"],
            env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'tests'}", "PYTHONHASHSEED": "0"},
            input=json.dumps(sources),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=True,
        )
        first, found = json.loads(done.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired:
        return True, "it does not end"
    except subprocess.CalledProcessError as error:
        return False, f"FAILED: {error.stderr[-300:]}"
    except ValueError as error:
        return False, f"WRONG ENTRY: {error}"
    if first is None:
        return False, "NOT NOTICED"
    return True, f"seed {first[0]:3}, {f'{found:3} of {seeds}, ' if counts else ''}{first[1]}"


def main() -> int:
    arguments = [each for each in sys.argv[1:] if each != "--count"]
    seeds = int(arguments[0]) if arguments else 100
    word = arguments[1] if len(arguments) > 1 else ""
    chosen = [mutant for mutant in MUTANTS if word in mutant.name]
    missed = 0
    with ThreadPoolExecutor(AT_ONCE) as pool:
        results = pool.map(lambda mutant: notice(mutant, seeds, "--count" in sys.argv), chosen)
        for mutant, (noticed, words) in zip(chosen, results, strict=True):
            missed += not noticed
            print(f"{mutant.name:75} {words}", flush=True)
    print(f"{len(chosen) - missed} of {len(chosen)} are noticed")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
