"""The API's routes for images."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import IO, TypeVar

from aiohttp import web

from agent.containers.container import Containers
from agent.dockerapi.errors import ApiError, filters, flag
from agent.images.archive import ArchiveError
from agent.images.store import Image, ImageError

Result = TypeVar("Result")


class ImageRoutes:
    """Handlers on a machine's images."""

    def __init__(self, containers: Containers) -> None:
        self._containers = containers
        self._images = containers.images

    def routes(self) -> list[web.RouteDef]:
        """What is served."""
        return [
            web.post("/images/create", self._create),
            web.post("/images/load", self._load),
            web.get("/images/json", self._list),
            web.get("/images/{name:.+}/json", self._inspect),
            web.post("/images/{name:.+}/tag", self._tag),
            web.delete("/images/{name:.+}", self._delete),
        ]

    async def _create(self, request: web.Request) -> web.StreamResponse:
        query = request.query
        if not (source := query.get("fromSrc", "")):
            name = query.get("fromImage", "")
            raise ApiError(404, f"{name} is not on this machine, and nothing is pulled: import or load it first")
        if source != "-":
            raise ApiError(400, "only an import from the request's body (fromSrc=-) is supported")
        reference = query.get("repo", "")
        if reference and query.get("tag"):
            reference = f"{reference}:{query['tag']}"
        image = await _spooled(request, lambda body: self._images.import_tar(body, reference, query.get("message", "")))
        if isinstance(image, str):
            return _lines({"errorDetail": {"message": image}, "error": image})
        return _lines({"status": image.id})

    async def _load(self, request: web.Request) -> web.StreamResponse:
        images = await _spooled(request, self._images.load)
        if isinstance(images, str):
            return _lines({"errorDetail": {"message": images}, "error": images})
        names = [f"Loaded image: {tag}\n" for image in images for tag in image.tags]
        names += [f"Loaded image ID: {image.id}\n" for image in images if not image.tags]
        return _lines(*({"stream": name} for name in names))

    async def _list(self, request: web.Request) -> web.Response:
        images = await asyncio.to_thread(self._images.all)
        if names := filters(request).get("reference", []):
            images = [image for image in images if any(_matches(tag, name) for tag in image.tags for name in names)]
        return web.json_response([_summary(image) for image in images])

    async def _inspect(self, request: web.Request) -> web.Response:
        image = self._images.resolve(request.match_info["name"])
        return web.json_response(
            {
                **_summary(image),
                "Created": image.config.get("created", ""),
                "Architecture": image.config.get("architecture", ""),
                "Os": image.config.get("os", "linux"),
                "Comment": image.config.get("comment", ""),
                "Config": dict(image.settings),
                "RootFS": {"Type": "layers", "Layers": image.config["rootfs"]["diff_ids"]},
            }
        )

    async def _tag(self, request: web.Request) -> web.Response:
        image = self._images.resolve(request.match_info["name"])
        if not (repository := request.query.get("repo", "")):
            raise ApiError(400, "repo= is missing: it names what the image is to be called")
        self._images.tag(image, f"{repository}:{request.query.get('tag') or 'latest'}")
        return web.Response(status=201)

    async def _delete(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        image = self._images.resolve(name)
        for record in self._containers.list():
            last = len(image.tags) < 2
            if record.image == image.id and last and (record.state == "running" or not flag(request, "force")):
                raise ApiError(
                    409,
                    f'conflict: unable to remove repository reference "{name}" (must force) - container'
                    f" {record.id[:12]} is using its referenced image {image.id[7:19]}",
                )
        gone = await asyncio.to_thread(self._images.remove, name, force=flag(request, "force"))
        return web.json_response(gone)


async def _spooled(request: web.Request, work: Callable[[IO[bytes]], Result]) -> Result | str:
    """Take a request's body to disk, then work on it in a thread; a refusal of the archive is answered as text."""
    with tempfile.TemporaryFile() as body:
        async for piece in request.content.iter_chunked(1 << 20):
            await asyncio.to_thread(body.write, piece)
        body.seek(0)
        try:
            return await asyncio.to_thread(work, body)
        except (ArchiveError, ImageError) as error:
            return str(error)


def _lines(*messages: Mapping[str, object]) -> web.Response:
    text = "".join(json.dumps(message) + "\r\n" for message in messages)
    # Of exactly this type, without a charset: docker's client prints the JSON itself otherwise.
    return web.Response(body=text.encode(), headers={"Content-Type": "application/json"})


def _matches(tag: str, name: str) -> bool:
    return tag == name or tag.rpartition(":")[0] == name


def _summary(image: Image) -> dict[str, object]:
    try:
        created = int(datetime.fromisoformat(str(image.config.get("created"))[:19] + "+00:00").timestamp())
    except ValueError:
        created = 0
    return {
        "Id": image.id,
        "ParentId": "",
        "RepoTags": list(image.tags),
        "RepoDigests": [],
        "Created": created,
        "Size": image.size,
        "VirtualSize": image.size,
        "SharedSize": -1,
        "Labels": image.settings.get("Labels") or {},
        "Containers": -1,
    }
