// What the npm package dockerode does with a daemon: DOCKER_HOST, with the image busybox. For each step a line of JSON
// {"step", "error"} is written; the error is null, or what went wrong.
"use strict";

const assert = require("node:assert/strict");
const {once} = require("node:events");
const fs = require("node:fs");
const {PassThrough} = require("node:stream");
const {setTimeout: pause} = require("node:timers/promises");
const tar = require("tar-stream");
const Docker = require("dockerode");

const docker = new Docker({socketPath: process.env.DOCKER_HOST.replace("unix://", "")});
const steps = [];
const step = (name, action) => steps.push([name, action]);

async function withContainer(options, action) {
  const container = await docker.createContainer({Image: "busybox", HostConfig: {}, ...options});
  try {
    return await action(container);
  } finally {
    await container.remove({force: true, v: true});
  }
}

const withRunning = (options, action) =>
  withContainer({Cmd: ["sleep", "600"], StopTimeout: 0, ...options}, async container => {
    await container.start();
    return action(container);
  });

async function all(stream) {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  return Buffer.concat(chunks).toString();
}

// Return both streams of a multiplexed one, at its end.
async function demuxed(stream) {
  const [out, err] = [new PassThrough(), new PassThrough()];
  docker.modem.demuxStream(stream, out, err);
  stream.on("end", () => [out, err].forEach(one => one.end()));
  return Promise.all([all(out), all(err)]);
}

// Read until the text matches, and return the text.
async function until(stream, pattern) {
  let text = "";
  for await (const chunk of stream.iterator({destroyOnReturn: false})) {
    text += chunk;
    if (pattern.test(text)) return text;
  }
  throw new Error(`the stream ended after ${JSON.stringify(text)}`);
}

async function runExec(container, options, start) {
  const exec = await container.exec({AttachStdout: true, AttachStderr: true, ...options});
  return [exec, await exec.start(start)];
}

function archive(files) {
  const pack = tar.pack();
  for (const [name, text] of Object.entries(files)) pack.entry({name}, text);
  pack.finalize();
  return pack;
}

async function extracted(stream) {
  const files = {};
  const extract = tar.extract();
  extract.on("entry", async (header, content, next) => {
    files[header.name] = await all(content);
    next();
  });
  stream.pipe(extract);
  await once(extract, "finish");
  return files;
}

const isRefused = (status, words) => error => error.statusCode === status && words.test(error.message);

step("ping, version and info answer what dockerode reads", async () => {
  assert.equal((await docker.ping()).toString(), "OK");
  const version = await docker.version();
  const info = await docker.info();
  assert.equal(version.Version, info.ServerVersion);
  assert.equal(info.OSType, "linux");
});

step("docker.run demultiplexes the output, waits, and knows the exit code", async () => {
  const [out, err] = [new PassThrough(), new PassThrough()];
  const texts = Promise.all([all(out), all(err)]);
  const script = "echo out; echo err >&2; exit 3";
  const [result, container] = await docker.run("busybox", ["sh", "-c", script], [out, err], {Tty: false});
  assert.equal(result.StatusCode, 3);
  assert.deepEqual(await texts, ["out\n", "err\n"]);
  await container.remove();
});

step("a container is inspected, listed, renamed, updated, paused, stopped and restarted", () =>
  withRunning({name: "node-before", Labels: {of: "node"}, Env: ["A=b"]}, async container => {
    await container.rename({name: "node-after"});
    await container.update({Memory: 64 << 20, MemorySwap: -1, RestartPolicy: {Name: "on-failure", MaximumRetryCount: 2}});
    const shown = await container.inspect();
    assert.equal(shown.Name, "/node-after");
    assert.ok(shown.Config.Env.includes("A=b"));
    assert.equal(shown.HostConfig.Memory, 64 << 20);
    assert.equal(shown.HostConfig.RestartPolicy.MaximumRetryCount, 2);
    const list = () => docker.listContainers({all: true, filters: {label: ["of=node"]}});
    await container.pause();
    assert.deepEqual((await list()).map(one => [one.Names, one.State]), [[["/node-after"], "paused"]]);
    await container.unpause();
    await container.restart({t: 0});
    assert.equal((await list())[0].State, "running");
    await container.kill({signal: "SIGKILL"});
    await container.wait();
    assert.equal((await container.inspect()).State.ExitCode, 137);
    await container.start();
    await container.stop({t: 0});
    assert.equal((await list())[0].State, "exited");
  }));

step("an exec takes input to its end over a hijacked connection, and has an exit code", () =>
  withRunning({}, async container => {
    const options = {
      Cmd: ["sh", "-c", 'cat; echo "$V $(pwd) $(id -u)" >&2; exit 7'],
      AttachStdin: true, Env: ["V=w"], WorkingDir: "/tmp", User: "12",
    };
    const [exec, stream] = await runExec(container, options, {hijack: true, stdin: true});
    const texts = demuxed(stream);
    stream.write("to and ");
    stream.end("fro\n");
    assert.deepEqual(await texts, ["to and fro\n", "w /tmp 12\n"]);
    const shown = await exec.inspect();
    assert.deepEqual([shown.Running, shown.ExitCode, shown.ContainerID], [false, 7, container.id]);
  }));

step("an exec without input streams over a plain answer", () =>
  withRunning({}, async container => {
    const [, stream] = await runExec(container, {Cmd: ["sh", "-c", "echo one; echo two >&2"]}, {});
    assert.deepEqual(await demuxed(stream), ["one\n", "two\n"]);
    const [detached] = await runExec(container, {Cmd: ["touch", "/made"]}, {Detach: true});
    while ((await detached.inspect()).ExitCode === null) await pause(10);
    assert.equal((await detached.inspect()).ExitCode, 0);
  }));

step("an exec's terminal is resized", () =>
  withRunning({}, async container => {
    const script = 'trap "stty size; exit 4" WINCH; echo ready; while :; do sleep 0.05; done';
    const options = {Cmd: ["sh", "-c", script], Tty: true, AttachStdin: true};
    const [exec, stream] = await runExec(container, options, {hijack: true, stdin: true, Tty: true});
    await until(stream, /ready\r\n/);
    await exec.resize({h: 31, w: 107});
    assert.match(await all(stream), /^31 107\r\n/);
    assert.equal((await exec.inspect()).ExitCode, 4);
  }));

step("attach takes input to its end and demultiplexes the output", () =>
  withContainer({Cmd: ["sh", "-c", "cat; echo end >&2"], OpenStdin: true, StdinOnce: true}, async container => {
    const stream = await container.attach({stream: true, stdin: true, stdout: true, stderr: true, hijack: true});
    const texts = demuxed(stream);
    await container.start();
    stream.end("to and fro\n");
    assert.deepEqual(await texts, ["to and fro\n", "end\n"]);
    assert.equal((await container.wait()).StatusCode, 0);
  }));

step("attach to a terminal: input, resize, detach", () =>
  withContainer({Tty: true, OpenStdin: true, AttachStdin: true}, async container => {
    const attach = () => container.attach({stream: true, stdin: true, stdout: true, stderr: true, hijack: true});
    const first = await attach();
    await container.start();
    await container.resize({h: 33, w: 111});
    first.write("stty size; echo $((40 + 2))-here\n");
    assert.match(await until(first, /42-here/), /33 111\r\n/);
    first.write("\x10\x11"); // Ctrl-P Ctrl-Q
    await all(first);
    assert.equal((await container.inspect()).State.Running, true);
    const second = await attach();
    second.write("exit 6\n");
    await all(second);
    assert.equal((await container.wait()).StatusCode, 6);
  }));

step("logs are read at once, and followed to the end", () =>
  withContainer({Cmd: ["sh", "-c", "echo one; read line; echo $line; echo three >&2"], OpenStdin: true}, async container => {
    const input = await container.attach({stream: true, stdin: true, hijack: true});
    await container.start();
    const followed = demuxed(await container.logs({follow: true, stdout: true, stderr: true}));
    input.write("two\n");
    assert.deepEqual(await followed, ["one\ntwo\n", "three\n"]);
    input.destroy();
    const last = await container.logs({stdout: true, stderr: true, tail: 1, timestamps: true});
    assert.match(last.subarray(8).toString(), /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z three\n$/);
  }));

step("wait has conditions and ends with its signal", () =>
  withContainer({Cmd: ["sh", "-c", "exit 5"]}, async container => {
    const next = container.wait({condition: "next-exit"});
    await pause(100);
    await container.start();
    assert.equal((await next).StatusCode, 5);
    const abort = new AbortController();
    const never = container.wait({condition: "removed", abortSignal: abort.signal});
    abort.abort();
    await assert.rejects(never, {name: "AbortError"});
  }));

step("networks are made, connected, inspected, listed and removed", async () => {
  const network = await docker.createNetwork({Name: "node-net", Labels: {of: "node"}, CheckDuplicate: true});
  await withRunning({name: "node-server"}, async server => {
    await network.connect({Container: server.id, EndpointConfig: {Aliases: ["served"]}});
    const shown = await network.inspect();
    assert.equal(shown.Containers[server.id].Name, "node-server");
    const endpoint = {"node-net": {Links: ["node-server:linked"]}};
    const options = {HostConfig: {NetworkMode: "node-net"}, NetworkingConfig: {EndpointsConfig: endpoint}};
    await withRunning(options, async client => {
      const script = "ping -c1 -W10 served && ping -c1 -W10 linked";
      const [exec, stream] = await runExec(client, {Cmd: ["sh", "-c", script]}, {});
      await all(stream);
      assert.equal((await exec.inspect()).ExitCode, 0);
    });
    await network.disconnect({Container: server.id});
    assert.deepEqual((await network.inspect()).Containers, {});
  });
  const listed = await docker.listNetworks({filters: {label: ["of=node"]}});
  assert.deepEqual(listed.map(one => one.Name), ["node-net"]);
  await network.remove();
  await assert.rejects(network.inspect(), isRefused(404, /network .* not found/));
});

step("volumes are made, mounted, listed, pruned and removed", async () => {
  const made = await docker.createVolume({Name: "node-vol", Labels: {of: "node"}});
  assert.equal(made.name ?? made.Name, "node-vol");
  const mounts = [{Type: "volume", Source: "node-vol", Target: "/data"}];
  const run = command => withContainer({Cmd: ["sh", "-c", command], HostConfig: {Mounts: mounts}}, async container => {
    await container.start();
    assert.equal((await container.wait()).StatusCode, 0);
    await assert.rejects(docker.getVolume("node-vol").remove(), isRefused(409, /volume is in use/));
    return (await container.inspect()).Mounts[0];
  });
  const mount = await run("echo kept > /data/file");
  assert.deepEqual([mount.Name, mount.Destination, mount.RW], ["node-vol", "/data", true]);
  await run("grep -q kept /data/file");
  const {Volumes: listed} = await docker.listVolumes({filters: {label: ["of=node"]}});
  assert.deepEqual(listed.map(one => one.Name), ["node-vol"]);
  const pruned = await docker.pruneVolumes({filters: {label: ["of=node"], all: ["true"]}});
  assert.deepEqual(pruned.VolumesDeleted, ["node-vol"]);
  await assert.rejects(docker.getVolume("node-vol").inspect(), isRefused(404, /no such volume/));
});

step("an archive is put, looked at and got", () =>
  withContainer({}, async container => {
    await container.putArchive(archive({"one.txt": "first", "dir/two.txt": "second"}), {path: "/tmp"});
    assert.deepEqual(await extracted(await container.getArchive({path: "/tmp/dir"})), {"dir/": "", "dir/two.txt": "second"});
    const head = await container.infoArchive({path: "/tmp/one.txt"});
    const stat = JSON.parse(Buffer.from(head.headers["x-docker-container-path-stat"], "base64"));
    assert.deepEqual([stat.name, stat.size], ["one.txt", 5]);
    await assert.rejects(container.getArchive({path: "/nothing"}), isRefused(404, /Could not find the file \/nothing/));
  }));

step("events come as they happen", async () => {
  const stream = await docker.getEvents({filters: {type: ["container"], label: ["seen=node"]}});
  await withContainer({Cmd: ["true"], Labels: {seen: "node"}}, async container => {
    await container.start();
    await container.wait();
  });
  const text = await until(stream, /"destroy"/);
  stream.destroy();
  const actions = text.trim().split("\n").map(line => JSON.parse(line).Action);
  assert.deepEqual(actions, ["create", "start", "die", "destroy"]);
});

step("statistics are read once, and stream", () =>
  withRunning({HostConfig: {Memory: 32 << 20}}, async container => {
    const once = await container.stats({stream: false, "one-shot": true});
    assert.equal(once.memory_stats.limit, 32 << 20);
    const stream = await container.stats({stream: true});
    const [first] = (await until(stream, /\n.*\n/)).split("\n");
    stream.destroy();
    assert.equal(JSON.parse(first).id, container.id);
    assert.ok(JSON.parse(first).pids_stats.current >= 1);
  }));

step("top, changes, export and commit", () =>
  withRunning({}, async container => {
    const {Titles, Processes} = await container.top({ps_args: "-eo pid,args"});
    assert.deepEqual(Titles, ["PID", "COMMAND"]);
    assert.match(Processes[0][1], /sleep 600/);
    await container.putArchive(archive({"fresh.txt": "x"}), {path: "/"});
    assert.ok((await container.changes()).some(one => one.Path === "/fresh.txt" && one.Kind === 1));
    assert.equal((await extracted(await container.export()))["fresh.txt"], "x");
    const {Id} = await container.commit({repo: "node/committed", tag: "1", changes: "CMD cat /fresh.txt"});
    const image = docker.getImage("node/committed:1");
    assert.equal((await image.inspect()).Id, Id);
    const output = new PassThrough();
    const text = all(output);
    const [, again] = await docker.run("node/committed:1", [], output, {Tty: true});
      assert.equal(await text, "x");
    await again.remove();
    await image.remove();
  }));

step("images are imported, loaded, tagged, listed and removed", async () => {
  const stream = await docker.importImage(archive({"file.txt": "x"}), {repo: "node/imported", tag: "1"});
  await new Promise((done, fail) => docker.modem.followProgress(stream, error => error ? fail(error) : done()));
  const image = docker.getImage("node/imported:1");
  await image.tag({repo: "node/other", tag: "2"});
  assert.deepEqual((await image.inspect()).RepoTags.sort(), ["node/imported:1", "node/other:2"]);
  assert.equal((await image.history()).length, 1);
  const listed = await docker.listImages({filters: {reference: ["node/imported", "node/other"]}});
  assert.equal(listed.length, 1);
  await image.remove();
  await docker.getImage("node/other:2").remove();
  await assert.rejects(image.inspect(), isRefused(404, /No such image: node\/imported:1/));
  const bad = await docker.loadImage(archive({"manifest.json": "no JSON"})).then(all).catch(error => error.message);
  assert.match(bad, /manifest/);
});

step("what fails is refused with a status and words", async () => {
  await assert.rejects(docker.getContainer("nobody").inspect(), isRefused(404, /No such container: nobody/));
  await assert.rejects(docker.createContainer({Image: "nothing"}), isRefused(404, /No such image: nothing:latest/));
  await withContainer({}, async container => {
    await assert.rejects(container.kill(), isRefused(409, /is not running/));
    await assert.rejects(container.exec({Cmd: ["true"]}), isRefused(409, /is not running/));
  });
});

step("what is no longer needed is pruned, and the disk's use is told", async () => {
  const container = await docker.createContainer({Image: "busybox", Cmd: ["true"], Labels: {prune: "node"}});
  await container.start();
  await container.wait();
  const use = await docker.df();
  assert.ok(use.Containers.some(one => one.Id === container.id));
  const pruned = await docker.pruneContainers({filters: {label: ["prune=node"]}});
  assert.deepEqual(pruned.ContainersDeleted, [container.id]);
});

// One after the other until none is left; several do so at once.
async function work() {
  for (let next = steps.shift(); next; next = steps.shift()) {
    const [name, action] = next;
    const error = await action().then(() => null, problem => problem.stack ?? String(problem));
    fs.writeSync(1, JSON.stringify({step: name, error}) + "\n");
  }
}

// Sockets that are kept alive would keep the process too.
Promise.all([work(), work(), work(), work()]).then(() => process.exit(0));
