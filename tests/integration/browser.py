"""Somebody at the console: what a browser sends, without one."""

import re

import httpx2

from api.console.door import COOKIE
from tests.integration.office import Office

HERE = {"Sec-Fetch-Site": "same-origin"}


class Browser:
    """A client with a jar for the one cookie, which it sends over plain HTTP as browsers do to 127.0.0.1."""

    def __init__(self, office: Office) -> None:
        self.http = httpx2.AsyncClient(base_url=office.url, timeout=30, trust_env=False)
        self.cookie: str | None = None

    async def get(self, path: str, **headers: str) -> httpx2.Response:
        return await self._send("GET", path, headers=headers)

    async def post(self, path: str, fields: dict | None = None, headers: dict | None = None) -> httpx2.Response:
        return await self._send("POST", path, headers=HERE if headers is None else headers, data=fields or {})

    async def _send(self, method: str, path: str, *, headers: dict, **content) -> httpx2.Response:
        cookies = {"Cookie": f"{COOKIE}={self.cookie}"} if self.cookie else {}
        self.http.cookies.clear()
        answer = await self.http.request(method, path, headers={**cookies, **headers}, **content)
        found = re.search(rf"{COOKIE}=([^;]*)", answer.headers.get("set-cookie", ""))
        if found:
            self.cookie = found[1].strip('"') or None
        return answer

    async def sign_in(self, person: str = "demo-operator", **more: str) -> httpx2.Response:
        return await self.post("/console/sign-in", {"person": person, **more})

    async def csrf(self) -> str:
        shown = await self.get("/console/work")
        return re.search(r'name="csrf" value="([0-9a-f]{64})"', shown.text)[1]
