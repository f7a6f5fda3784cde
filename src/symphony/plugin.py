"""Plugins: the base class, and the order in which they start and stop."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from symphony.errors import ConfigurationError

if TYPE_CHECKING:
    from symphony.app import Symphony

__all__ = ("Plugin", "Plugins")


class Plugin:
    """Sets up an app: handlers, middleware, routes, lifecycle.

    Subclass it, and pass it its options in `__init__`. A plugin uses only the
    public API of the app.

    Attributes:
        name: A name that is unique among the plugins of the app.
        requires: Names of plugins that must be added before this one.
    """

    name: str = ""
    requires: tuple[str, ...] = ()

    def setup(self, app: Symphony) -> None:
        """Register everything; called once, when the plugin is added."""

    async def startup(self, app: Symphony) -> None:
        """Acquire resources; called when the app starts, in the order of adding."""

    async def shutdown(self, app: Symphony) -> None:
        """Release resources; called when the app stops, in reverse order, if `startup` succeeded."""


AnyPlugin: TypeAlias = "Plugin | Callable[[Symphony], Any]"


class Plugins:
    """The plugins of one app."""

    def __init__(self) -> None:
        self._plugins: dict[str, Plugin] = {}
        self._started: list[Plugin] = []

    def add(self, app: Symphony, plugin: AnyPlugin) -> None:
        """Check a plugin and let it set up *app*.

        Raises:
            ConfigurationError: Its name is taken or missing, a plugin that it
                requires has not been added, or its `setup` failed.
        """
        if isinstance(plugin, type):
            raise ConfigurationError(
                f"app.plugin() takes an object, not a class. Write {plugin.__name__}(...)."
            )
        if not isinstance(plugin, Plugin):
            self._set_up(app, getattr(plugin, "__qualname__", repr(plugin)), plugin)
            return
        name = plugin.name
        if not name:
            raise ConfigurationError(f"The plugin {type(plugin).__qualname__} has no name.")
        if name in self._plugins:
            raise ConfigurationError(f"The app already has a plugin named {name!r}: {self._plugins[name]!r}.")
        missing = [required for required in plugin.requires if required not in self._plugins]
        if missing:
            raise ConfigurationError(
                f"The plugin {name!r} requires {', '.join(map(repr, missing))}. Add that first."
            )
        self._set_up(app, name, plugin.setup)
        self._plugins[name] = plugin

    async def startup(self, app: Symphony) -> None:
        """Start all plugins in order. If one fails, stop those that had started."""
        for plugin in self._plugins.values():
            try:
                await plugin.startup(app)
            except BaseException:
                await self.shutdown(app)
                raise
            self._started.append(plugin)

    async def shutdown(self, app: Symphony) -> None:
        """Stop all started plugins in reverse order, then raise the first error if any."""
        errors: list[BaseException] = []
        while self._started:
            try:
                await self._started.pop().shutdown(app)
            except BaseException as error:
                errors.append(error)
        if errors:
            raise errors[0]

    @staticmethod
    def _set_up(app: Symphony, name: str, setup: Callable[[Symphony], Any]) -> None:
        try:
            setup(app)
        except Exception as error:
            raise ConfigurationError(f"The setup of the plugin {name!r} failed: {error}") from error
