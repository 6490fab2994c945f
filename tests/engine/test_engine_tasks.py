"""The end of background tasks."""

import asyncio

from logd.engine.tasks import Tasks


async def test_what_a_task_begins_while_all_are_ended_is_ended_too():
    tasks, ended = Tasks(), []

    async def watch():
        try:
            await asyncio.Event().wait()
        finally:
            tasks.start(clean(), "cleaning")

    async def clean():
        await asyncio.sleep(0)
        ended.append("cleaning")

    async def launch():
        await asyncio.sleep(0)
        tasks.start(watch(), "exit", watches=True)
        await asyncio.sleep(0)
        ended.append("launch")

    tasks.start(launch(), "launch")
    await tasks.finish(20)
    assert ended == ["launch", "cleaning"]
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_task_that_does_not_end_in_time_is_cancelled_and_named(caplog):
    tasks = Tasks()
    task = tasks.start(asyncio.sleep(600), "long work")
    await tasks.finish(0.01)
    assert task.cancelled()
    assert "long work did not end in time" in caplog.text
