"""One idea a module, so that it is read in one sitting."""

from pathlib import Path

import symphony

PACKAGE = Path(symphony.__file__).parent
MOST_LINES = 400


def test_no_module_is_longer_than_one_reads_in_one_sitting() -> None:
    lines = {
        str(file.relative_to(PACKAGE)): len(file.read_text().splitlines()) for file in PACKAGE.rglob("*.py")
    }
    assert lines
    assert {module: count for module, count in lines.items() if count > MOST_LINES} == {}
