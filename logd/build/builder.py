"""A build: stage by stage, instruction by instruction, each an image on the one before; what was built before is taken.

An image of a build knows the step that made it, a digest of all that goes into it (ImageStore.built): a step whose
digest is known is not done again. Text and order of the output are those of Docker's builder, version 1.
"""

import io
import tarfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

from logd import references
from logd.build import dockerfile
from logd.build.context import Context
from logd.build.copying import ROOT, look, put
from logd.build.dockerfile import Dockerfile, Instruction, Stage
from logd.build.options import BuildOptions
from logd.build.running import run, step_container
from logd.build.stage import PROXIES, StageState
from logd.engine.engine import Engine
from logd.errors import InvalidParameter, NotFound
from logd.files.client import answered
from logd.images.changes import apply, shell_of
from logd.images.image import Image
from logd.images.registries import Registries
from logd.images.removal import short
from logd.images.report import Report
from logd.images.shellwords import expand, split
from logd.images.store import ImageStore

SCRATCH: Final = "scratch"
NOP: Final = "#(nop) "

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
        self._steps = (0, 0)
        self._used: set[str] = set(PROXIES)

    async def build(self) -> Image:
        """Build and name the image. Raises LogdError; what was built up to there stays for the next time."""
        name = self._options.dockerfile
        parsed = dockerfile.read(self._context.read(name), name)
        stages = parsed.up_to(self._options.target)
        self._steps = (0, _count(parsed, stages) + (1 if self._options.labels else 0))
        for argument in parsed.arguments:
            await self._begin_step(argument.shown)
            self._declare_globally(argument)
        for number, stage in enumerate(stages):
            state = await self._stage(stage)
            if number == len(stages) - 1:
                await self._label(state)
            self._done.append((stage.name, state.image))
        image = self._done[-1][1]
        if image.document.rootfs.diff_ids in ([], None) and not image.document.history:
            raise InvalidParameter("No image was generated. Is your Dockerfile empty?")
        if unused := sorted(self._options.arguments.keys() - self._used):
            await self._say(f"[Warning] One or more build-args {unused} were not consumed\n")
        await self._tell({"aux": {"ID": image.id}})
        await self._say(f"Successfully built {short(image.id)}\n")
        for tag in self._options.names:
            self._store.tag(image.id, tag.name, tag.tag)
            await self._say(f"Successfully tagged {tag.familiar}\n")
        return image

    def _declare_globally(self, argument: Instruction) -> None:
        for word in split(argument.text):
            name, equals, default = word.partition("=")
            self._used.add(name)
            if name in self._options.arguments:
                self._global[name] = self._options.arguments[name]
            elif equals:
                self._global[name] = expand(default, self._global)

    async def _stage(self, stage: Stage) -> StageState:
        await self._begin_step(stage.start.shown)
        base = expand(stage.base, self._global)
        if not base:
            raise InvalidParameter(f"base name ({stage.base}) should not be blank")
        platform = expand(stage.start.flags.get("platform", ""), self._global) or self._options.platform
        image = await self._base(base, platform)
        state = StageState.on(image)
        await self._say(f" ---> {short(image.id)}\n")
        triggers = image.runtime_config.get("OnBuild") or []
        if triggers:
            await self._say(f"# Executing {len(triggers)} build trigger{'s' if len(triggers) > 1 else ''}\n")
        for trigger in triggers:
            keyword, _, text = trigger.partition(" ")
            await self._do(state, dockerfile.instruction(keyword.upper(), text, stage.start.line))
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
        """Set the labels that the request has, as a last instruction."""
        if not self._options.labels:
            return
        labels = " ".join(f"{key}={value}" for key, value in sorted(self._options.labels.items()))
        await self._begin_step(f"LABEL {labels}")
        state.config["Labels"] = {**(state.config.get("Labels") or {}), **self._options.labels}
        await self._commit_config(state, f"LABEL {labels}")
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
            case "SHELL":
                words = dockerfile.json_words(one.text)
                if not words:
                    raise InvalidParameter(f"SHELL requires the arguments to be in JSON form: {one.text}")
                state.config["Shell"] = words
                await self._commit_config(state, one.shown)
            case "MAINTAINER":
                state.author = one.text
                await self._commit_config(state, one.shown)
            case _:
                self._configure(state, one)
                await self._commit_config(state, one.shown)

    def _configure(self, state: StageState, one: Instruction) -> None:
        command = state.config.get("Cmd")
        state.config = apply([f"{one.keyword} {_one_line(one.text)}"], state.config, state.arguments)
        if one.keyword == "CMD":
            state.has_command = True
        elif one.keyword == "ENTRYPOINT" and state.has_command:
            state.config["Cmd"] = command

    async def _argument(self, state: StageState, one: Instruction) -> None:
        for word in split(one.text):
            name, equals, default = word.partition("=")
            self._used.add(name)
            if name in self._options.arguments:
                state.arguments[name] = self._options.arguments[name]
            elif equals:
                state.arguments[name] = expand(default, state.variables)
            elif name in self._global:
                state.arguments[name] = self._global[name]
        await self._commit_config(state, one.shown)

    async def _run(self, state: StageState, one: Instruction) -> None:
        words = dockerfile.json_words(one.text)
        command = [*shell_of(state.config), one.text] if words is None else words
        arguments = state.run_arguments(self._options.arguments)
        counted = {name: value for name, value in arguments.items() if name not in PROXIES}
        shown = [f"{name}={value}" for name, value in sorted(counted.items())]
        created_by = " ".join([*([f"|{len(shown)}", *shown] if shown else []), *command])
        step = state.step("RUN", command, counted)
        if await self._is_built(state, step):
            return
        config = state.config | {"Env": [*(state.config.get("Env") or []), *(f"{k}={v}" for k, v in arguments.items())]}
        async with step_container(self._engine, self._options, state.image, config, command) as container:
            await self._say(f" ---> Running in {short(container.id)}\n")
            await run(self._engine, container, self._say)
            state.image = await self._engine.files.commit(
                container, config=state.config, author=state.author, created_by=created_by, step=step
            )
        await self._say_removed(container.id)

    async def _copy(self, state: StageState, one: Instruction) -> None:
        words = [expand(word, state.variables) for word in one.words]
        owner = expand(one.flags.get("chown", ""), state.variables)
        source, ignored = self._context.place(), self._context.ignored
        if named := one.flags.get("from"):
            image = self._stage_image(named) or await self._image(named)
            source, ignored = self._context.place(self._store.layers(image)), []
        target = self._context.place(self._store.layers(state.image))
        workdir = state.config.get("WorkingDir") or "/"
        copying = await look(one.keyword, source, target, words, workdir=workdir, owner=owner, ignored=ignored)
        shown = f"/bin/sh -c {NOP}{one.keyword} {copying.digest} in {copying.selection.destination} "
        step = state.step(
            one.keyword, copying.digest, copying.selection.destination, copying.selection.is_folder, owner
        )
        if await self._is_built(state, step):
            return
        async with step_container(self._engine, self._options, state.image, state.config, [shown]) as container:
            await put(self._engine, container, copying)
            state.image = await self._engine.files.commit(
                container, config=state.config, author=state.author, created_by=shown, step=step
            )

    async def _workdir(self, state: StageState, one: Instruction) -> None:
        """Set the folder, and make it if it is not there."""
        self._configure(state, one)
        path: str = state.config["WorkingDir"]
        try:
            async with answered("stat", self._context.place(self._store.layers(state.image)), path=path + "/"):
                pass
        except NotFound:
            pass
        else:
            await self._commit_config(state, one.shown)
            return
        step = state.step("WORKDIR", path)
        if await self._is_built(state, step):
            return
        shown = f"/bin/sh -c {NOP}{one.shown}"
        async with step_container(self._engine, self._options, state.image, state.config, [shown]) as container:
            await self._engine.files.extract(
                container, container.id, "/", _folder(path), keep_kinds=True, owner=ROOT, with_mounts=False
            )
            state.image = await self._engine.files.commit(
                container, config=state.config, author=state.author, created_by=shown, step=step
            )

    async def _commit_config(self, state: StageState, shown: str) -> None:
        """Make an image of the settings, on the same files."""
        step = state.step(shown)
        if await self._is_built(state, step):
            return
        state.image = await self._store.commit(
            state.image,
            None,
            run_config=state.config,
            created_by=f"/bin/sh -c {NOP} {shown}",
            author=state.author,
            step=step,
        )

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
        await self._say(f"Step {number + 1}/{total} : {_one_line(shown)}\n")

    async def _say(self, text: str) -> None:
        await self._tell({"stream": text})

    async def _say_removed(self, container_id: str) -> None:
        if self._options.remove:
            await self._say(f" ---> Removed intermediate container {short(container_id)}\n")


def _count(parsed: Dockerfile, stages: list[Stage]) -> int:
    return len(parsed.arguments) + sum(1 + len(stage.instructions) for stage in stages)


def _one_line(text: str) -> str:
    return " ".join(text.splitlines())


async def _folder(path: str) -> AsyncIterator[bytes]:
    """Yield the tar of one folder."""
    with io.BytesIO() as output:
        with tarfile.open(fileobj=output, mode="w", format=tarfile.PAX_FORMAT) as archive:
            member = tarfile.TarInfo(path.strip("/"))
            member.type, member.mode, member.mtime = tarfile.DIRTYPE, 0o755, int(time.time())
            archive.addfile(member)
        yield output.getvalue()
