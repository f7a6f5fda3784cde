"""An app that sends every message back."""

from symphony import Limits, Symphony


def echo_app(compression: int | None = None, **limits) -> Symphony:
    app = Symphony(compression=compression, limits=Limits(**limits))

    @app.on_message
    async def echo(message: str | bytes) -> str | bytes:
        return message

    return app
