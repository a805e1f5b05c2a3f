"""SIGHUP: read the settings again, and take over what can change while the daemon runs."""

from collections.abc import Callable, Mapping

import structlog

from logagg.collector.settings import Settings, SettingsError

log = structlog.get_logger("daemon")


class Reloading:
    """The settings as they stand, and who hears of changes. One that nobody hears of needs a restart."""

    def __init__(self, settings: Settings, read: Callable[[], Settings]) -> None:
        """`read` reads the settings from where they came from; raises SettingsError."""
        self.settings = settings
        self._read = read
        self._hooks: dict[str, Callable[[Settings], None]] = {}
        self._files: list[Callable[[], None]] = []

    def on(self, hooks: Mapping[str, Callable[[Settings], None]]) -> None:
        """Call these, by the name of the setting that has changed, with the settings that are new."""
        self._hooks.update(hooks)

    def each_time(self, read: Callable[[], None]) -> None:
        """Call this whatever has changed: the settings name a file, which may be another now."""
        self._files.append(read)

    def reload(self) -> None:
        """Take over what has changed; settings that are wrong change nothing, and are said."""
        try:
            new = self._read()
        except SettingsError as error:
            log.error("the settings are wrong; nothing is changed", reason=str(error))
            return
        changed = [name for name in Settings.model_fields if getattr(new, name) != getattr(self.settings, name)]
        taken = [name for name in changed if name in self._hooks]
        self.settings = self.settings.model_copy(update={name: getattr(new, name) for name in taken})
        for name in taken:
            self._hooks[name](self.settings)
        log.info("settings are read again", changed=taken)
        for read in self._files:
            read()
        if later := sorted(set(changed) - set(taken)):
            log.warning("settings that need a restart have changed", settings=later)
