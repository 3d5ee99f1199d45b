"""The one error of this package: what is wrong with a volume, and what to do about it."""


class VolumeError(Exception):
    """A volume, mask or description of one cannot be used.

    `reason` is a stable UPPER_SNAKE word for programs, `message` a sentence for people. Neither ever holds
    pixel values of a patient, names or file paths.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message

    def __reduce__(self) -> tuple[type["VolumeError"], tuple[str, str]]:
        return (type(self), (self.reason, self.message))
