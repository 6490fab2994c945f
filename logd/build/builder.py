"""A build: stage by stage, instruction by instruction, each an image on the one before; what was built before is taken.

An image of a build knows the step that made it, a digest of all that goes into it (ImageStore.built): a step whose
digest is known is not done again. Text and order of the output are those of Docker's builder, version 1.
"""

import asyncio
import io
import tarfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Final

import orjson

from logd import references
from logd.build import dockerfile
from logd.build.context import Context
from logd.build.copying import FILE, copying, unpack
from logd.build.dockerfile import Dockerfile, Instruction, Stage
from logd.build.options import BuildOptions
from logd.build.running import run, step_container
from logd.build.stage import PROXIES, StageState
from logd.build.wording import comment_on, created_by, created_by_command, created_by_files
from logd.engine.engine import Engine
from logd.engine.signals import parse_signal
from logd.errors import InvalidParameter, LogdError, NotFound
from logd.files.client import answered
from logd.images.changes import EMPTY, change, copied, shell_of
from logd.images.image import Image
from logd.images.registries import Registries
from logd.images.removal import short
from logd.images.report import Report
from logd.images.shellwords import expand, split
from logd.images.store import ImageStore

SCRATCH: Final = "scratch"

MAX_CONFIG: Final = 4 << 20
"""Bytes of an image's settings, as JSON."""

Tell = Callable[[dict[str, Any]], Awaitable[None]]
"""Sends a message to the client."""
Pull = Callable[[Callable[[Report], Awaitable[Image]]], Awaitable[Image]]
"""Pulls an image, and sends how that goes on."""


class Builder:
    """One build."""

    def __init__(
        self,
        engine: Engine,
        store: ImageStore,
        registries: Registries,
        context: Context,
        options: BuildOptions,
        tell: Tell,
        pull: Pull,
    ) -> None:
        self._engine = engine
        self._store = store
        self._registries = registries
        self._context = context
        self._options = options
        self._tell = tell
        self._pull = pull
        self._done: list[tuple[str, Image]] = []
        self._global: dict[str, str] = {}
        self._escape = "\\"
        self._steps = (0, 0)
        self._used: set[str] = set(PROXIES)

    async def build(self) -> Image:
        """Build and name the image. Raises LogdError; what was built up to there stays for the next time."""
        name = self._options.dockerfile
        parsed = await asyncio.to_thread(lambda: dockerfile.read(self._context.read(name), name))
        stages = parsed.up_to(self._options.target)
        self._escape = parsed.escape
        self._steps = (0, _count(parsed, stages) + len(self._options.labels))
        for argument in parsed.arguments:
            await self._begin_step(argument.shown)
            words = split(argument.text, self._escape)
            self._declare(words, self._global, lambda text: expand(text, self._global, self._escape))
        for number, stage in enumerate(stages):
            state = await self._stage(stage)
            if number == len(stages) - 1:
                await self._label(state)
            self._done.append((stage.name, state.image))
        image = self._done[-1][1]
        if image.document.rootfs.diff_ids in ([], None) and not image.document.history:
            raise InvalidParameter("No image was generated. Is your Dockerfile empty?")
        if unused := sorted(self._options.arguments.keys() - self._used):
            await self._say(f"[Warning] One or more build-args [{' '.join(unused)}] were not consumed\n")
        await self._tell({"aux": {"ID": image.id}})
        await self._say(f"Successfully built {short(image.id)}\n")
        for tag in self._options.names:
            self._store.tag(image.id, tag.name, tag.tag)
            await self._say(f"Successfully tagged {tag.familiar}\n")
        return image

    def _declare(
        self, words: list[str], into: dict[str, str], expanded: Callable[[str], str], outer: Mapping[str, str] = EMPTY
    ) -> list[str]:
        """Set in `into` what the words of an ARG declare, and return them with their defaults expanded.

        The request's value comes first, then the default, then what `outer` has under the name.
        """
        shown = []
        for word in words:
            name, equals, default = word.partition("=")
            value = expanded(default)
            shown.append(f"{name}={value}" if equals else name)
            self._used.add(name)
            if name in self._options.arguments:
                into[name] = self._options.arguments[name]
            elif equals:
                into[name] = value
            elif name in outer:
                into[name] = outer[name]
        return shown

    async def _stage(self, stage: Stage) -> StageState:
        await self._begin_step(stage.start.shown)
        base = expand(stage.base, self._global, self._escape)
        if not base:
            raise InvalidParameter(f"base name ({stage.base}) should not be blank")
        platform = stage.start.flags.get("platform", "")
        image = await self._base(base, expand(platform, self._global, self._escape) or self._options.platform)
        state = StageState.on(image, self._escape)
        await self._say(f" ---> {short(image.id) if base != SCRATCH else ''}\n")
        triggers = image.runtime_config.get("OnBuild") or []
        if triggers:
            await self._say(f"# Executing {len(triggers)} build trigger{'s' if len(triggers) > 1 else ''}\n")
        for trigger in triggers:
            keyword, _, text = trigger.partition(" ")
            await self._do(state, dockerfile.instruction(keyword, text, stage.start.line, self._escape))
        for one in stage.instructions:
            await self._begin_step(one.shown)
            await self._do(state, one)
            await self._say(f" ---> {short(state.image.id)}\n")
        return state

    async def _base(self, name: str, platform: str) -> Image:
        if (stage := self._stage_image(name)) is not None:
            return stage
        if name == SCRATCH:
            return await self._nothing()
        return await self._image(name, platform)

    def _stage_image(self, name: str) -> Image | None:
        for number, (stage, image) in enumerate(self._done):
            if name.lower() == stage or name == str(number):
                return image
        return None

    async def _other(self, name: str) -> Image:
        """Return the stage or image that --from names. Raises InvalidParameter."""
        if (stage := self._stage_image(name)) is not None:
            return stage
        if name.isdecimal():
            raise InvalidParameter(f"invalid from flag value {name}: index out of bounds")
        try:
            return await self._image(name)
        except LogdError as error:
            raise InvalidParameter(f"invalid from flag value {name}: {error}") from error

    async def _image(self, name: str, platform: str = "") -> Image:
        """Return an image of this host or, if it has none of that name, of a registry."""
        if not self._options.pull:
            try:
                return self._store.resolve(name)
            except NotFound:
                pass
        wanted = references.parse(name).with_default_tag()
        credentials = self._options.credentials_for(wanted.domain)
        return await self._pull(lambda report: self._registries.pull(wanted, credentials, platform, report))

    async def _nothing(self) -> Image:
        """Return the image without files that a stage on `scratch` begins with."""
        known = self._store.built(None, SCRATCH)
        if known is not None:
            return known
        return await self._store.commit(None, None, run_config={}, created_by="", step=SCRATCH)

    async def _label(self, state: StageState) -> None:
        """Set the labels that the request has, as last instructions."""
        for key, value in sorted(self._options.labels.items()):
            said = f"LABEL {key}={value}"
            await self._begin_step(" ".join(said.splitlines()))
            state.config["Labels"] = {**(state.config.get("Labels") or {}), key: value}
            await self._commit_config(state, said)
            await self._say(f" ---> {short(state.image.id)}\n")

    async def _do(self, state: StageState, one: Instruction) -> None:
        """Do one instruction: `state` then has the image that it made."""
        match one.keyword:
            case "ARG":
                await self._argument(state, one)
            case "RUN":
                await self._run(state, one)
            case "COPY" | "ADD":
                await self._copy(state, one)
            case "WORKDIR":
                await self._workdir(state, one)
            case "MAINTAINER":
                state.author = one.text
                await self._commit_config(state, f"MAINTAINER {one.text}")
            case _:
                await self._commit_config(state, await self._configure(state, one))

    async def _configure(self, state: StageState, one: Instruction) -> str:
        """Alter the settings, and return what the history is to say of it."""
        before = state.scope
        state.config = copied(state.config)
        match one.keyword:
            case "SHELL":
                state.config["Shell"] = dockerfile.json_words(one.text)
            case "HEALTHCHECK" if test := (state.config.pop("Healthcheck", None) or {}).get("Test"):
                if test[0] != "NONE":
                    await self._say(f"Note: overriding previous HEALTHCHECK: [{' '.join(test)}]\n")
        if one.keyword != "SHELL":
            change(one.keyword, " ".join(one.text.splitlines()), state.scope)
        if one.keyword == "CMD":
            state.has_command = True
        elif one.keyword == "ENTRYPOINT" and not state.has_command:
            state.config.pop("Cmd", None)  # it was meant for the entrypoint that was there
        elif one.keyword == "STOPSIGNAL":
            parse_signal(state.config["StopSignal"])
        if len(orjson.dumps(state.config)) > MAX_CONFIG:
            raise InvalidParameter(f"the settings of the image are longer than {MAX_CONFIG} bytes")
        return comment_on(one.keyword, one.text, before, state.config)

    async def _argument(self, state: StageState, one: Instruction) -> None:
        def expanded(text: str) -> str:
            return state.scope.expand(text)  # a scope that knows the word before

        shown = self._declare(split(one.text, state.escape), state.arguments, expanded, self._global)
        await self._commit_config(state, f"ARG {' '.join(shown)}")

    async def _run(self, state: StageState, one: Instruction) -> None:
        words = dockerfile.json_words(one.text)
        command = [*shell_of(state.config), one.text] if words is None else words
        arguments = state.run_arguments(self._options.arguments)
        counted = state.counted(arguments)
        shown = created_by_command(command, counted, has_arguments=bool(arguments))
        step = state.step("RUN", command, counted)
        if await self._is_built(state, step):
            return
        config = state.config | {"Env": [*(state.config.get("Env") or []), *(f"{k}={v}" for k, v in arguments.items())]}
        async with step_container(
            self._engine, self._context, self._options, state.image, config, command
        ) as container:
            await self._say(f" ---> Running in {short(container.id)}\n")
            await run(self._engine, container, self._say)
            state.image = await self._engine.files.commit(
                container, config=state.config, author=state.author, created_by=shown, step=step
            )
        await self._say_removed(container.id)

    async def _copy(self, state: StageState, one: Instruction) -> None:
        words = [state.scope.expand(word) for word in one.words]
        owner = state.scope.expand(one.flags.get("chown", ""))
        source = self._context.place()
        ignored: list[str] | None = self._context.ignored
        if named := one.flags.get("from"):
            source, ignored = self._context.place(self._store.layers(await self._other(named))), None
        target = self._context.place(self._store.layers(state.image), "target")
        workdir = state.config.get("WorkingDir") or "/"
        async with copying(one.keyword, source, target, words, workdir=workdir, owner=owner, ignored=ignored) as found:
            shown = created_by_files(state.config, found.comment)
            step = state.step(one.keyword, found.digest, owner)
            if await self._is_built(state, step):
                return
            if not found.archives:
                await self._commit_files(state, found.answer.chunks(), step, shown)
                return
            async with step_container(
                self._engine, self._context, self._options, state.image, state.config, [shown]
            ) as container:
                await unpack(self._engine, container, found)
                state.image = await self._engine.files.commit(
                    container, config=state.config, author=state.author, created_by=shown, step=step
                )

    async def _workdir(self, state: StageState, one: Instruction) -> None:
        """Set the folder, and make it if it is not there."""
        shown = created_by_files(state.config, await self._configure(state, one))
        path: str = state.config["WorkingDir"]
        step = state.step("WORKDIR", path)
        if await self._is_built(state, step):
            return
        try:
            async with answered("where", self._context.place(self._store.layers(state.image)), path=path) as it:
                found = it.result
        except InvalidParameter as error:
            raise InvalidParameter(f"Cannot mkdir: {path} is not a directory") from error
        if found["kind"] == FILE:
            raise InvalidParameter(f"Cannot mkdir: {path} is not a directory")
        await self._commit_files(state, None if found["kind"] else _folder(found["path"]), step, shown)

    async def _commit_files(self, state: StageState, layer: AsyncIterator[bytes] | None, step: str, shown: str) -> None:
        """Make an image of the settings, and of a layer's tar on top of the files."""
        state.image = await self._store.commit(
            state.image, layer, run_config=state.config, created_by=shown, author=state.author, step=step
        )

    async def _commit_config(self, state: StageState, comment: str) -> None:
        """Make an image of the settings, on the same files."""
        step = state.step(comment)
        if not await self._is_built(state, step):
            await self._commit_files(state, None, step, created_by(state.config, comment))

    async def _is_built(self, state: StageState, step: str) -> bool:
        """Take the image that a step has made before, if it may be taken."""
        known = None if self._options.no_cache else self._store.built(state.image, step)
        if known is None:
            return False
        await self._say(" ---> Using cache\n")
        state.image = known
        return True

    async def _begin_step(self, shown: str) -> None:
        number, total = self._steps
        self._steps = (number + 1, total)
        await self._say(f"Step {number + 1}/{total} : {shown}\n")

    async def _say(self, text: str) -> None:
        await self._tell({"stream": text})

    async def _say_removed(self, container_id: str) -> None:
        if self._options.remove:
            await self._say(f" ---> Removed intermediate container {short(container_id)}\n")


def _count(parsed: Dockerfile, stages: list[Stage]) -> int:
    return len(parsed.arguments) + sum(1 + len(stage.instructions) for stage in stages)


async def _folder(path: str) -> AsyncIterator[bytes]:
    """Yield the tar of one folder."""
    with io.BytesIO() as output:
        with tarfile.open(fileobj=output, mode="w", format=tarfile.PAX_FORMAT) as archive:
            member = tarfile.TarInfo(path.strip("/"))
            member.type, member.mode, member.mtime = tarfile.DIRTYPE, 0o755, int(time.time())
            archive.addfile(member)
        yield output.getvalue()
