"""Masks tokens in log records, for the day when somebody logs a request or an exception that quotes one."""

from __future__ import annotations

import logging
from typing import Any, Final

from watchword.token import ID_LENGTH, PREFIX_DEFAULT, check_prefix, token_pattern

# What logging itself puts into a record and what cannot hold a caller's text.
_OWN: Final = frozenset(vars(logging.LogRecord("", 0, "", 0, "", (), None))) | {"message", "asctime"}
_FORMATTER: Final = logging.Formatter()


class MaskTokens(logging.Filter):
    """Replaces the secret half of every whole token, in message, arguments, exception text, stack and extra fields.

    The public half stays: `ww_0V8...[masked]` still says which token it was. Add it to handlers, not loggers: a
    logger's filters do not see what its children log.

        for handler in logging.getLogger().handlers:
            handler.addFilter(MaskTokens())

    A record that held a token keeps its text and loses its arguments and exception object, which hold it too.
    """

    def __init__(self, prefix: str = PREFIX_DEFAULT) -> None:
        super().__init__()
        self._pattern: Final = token_pattern(check_prefix(prefix))
        self._shown: Final = len(prefix) + ID_LENGTH

    def filter(self, record: logging.LogRecord) -> bool:
        """Masks `record` in place and lets it through."""
        try:
            message = record.getMessage()
        except Exception:
            # logging would print the arguments to stderr, unmasked, to say that they do not fit.
            message = f"{record.msg} (arguments that do not fit: {record.args!r})"
            record.msg, record.args = self.mask(message), ()
        else:
            masked = self.mask(message)
            if masked != message or self._mentions(record.args):
                record.msg, record.args = masked, ()
        self._mask_exception(record)
        if record.stack_info:
            record.stack_info = self.mask(record.stack_info)
        for name, value in vars(record).items():
            if name not in _OWN and self._mentions(value):
                setattr(record, name, self.mask(value if isinstance(value, str) else str(value)))
        return True

    def mask(self, text: str) -> str:
        """`text` with the secret half of each token replaced."""
        return self._pattern.sub(lambda found: found.group()[: self._shown] + "[masked]", text)

    def _mask_exception(self, record: logging.LogRecord) -> None:
        if record.exc_info and not record.exc_text:
            text = _FORMATTER.formatException(record.exc_info)
            masked = self.mask(text)
            if masked != text:
                record.exc_info, record.exc_text = None, masked
        elif record.exc_text:
            record.exc_text = self.mask(record.exc_text)

    def _mentions(self, value: Any) -> bool:
        if value is None or isinstance(value, (bool, int, float)):
            return False
        return self._pattern.search(value if isinstance(value, str) else str(value)) is not None
