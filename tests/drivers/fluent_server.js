// A Fluent forward server that is not ours (npm package @fluent-org/logger). Its options are argv[2], JSON; of tlsOptions
// key, cert and ca are names of files. Writes {"listening": port}, then each record that it receives, as a line of JSON.
// Ends with its standard input.
"use strict";

const fs = require("fs");
const {FluentServer} = require("@fluent-org/logger");

const options = JSON.parse(process.argv[2]);
for (const name of ["key", "cert", "ca"]) {
  if (options.tlsOptions && options.tlsOptions[name]) {
    options.tlsOptions[name] = fs.readFileSync(options.tlsOptions[name]);
  }
}

const say = what => fs.writeSync(1, JSON.stringify(what) + "\n");
const server = new FluentServer(options);
server.on("entry", (tag, time, record) => {
  say({tag, time: typeof time === "number" ? time : {seconds: time.epoch, nanoseconds: time.nano}, record});
});
process.stdin.on("end", () => process.exit(0)).resume();
server.listen().then(() => say({listening: server.port || 0}));
