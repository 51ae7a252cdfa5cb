"""The REST interface: one router per domain, ``def router(auth, <services>) -> fastapi.APIRouter``.

Errors are ``{"code", "text"}``. HTTP bodies are pydantic; behind the routers everything is dataclasses.
"""
