// node build.mjs NODE_MODULES OUTPUT: makes a component of app.js beside this file.
import { readFileSync, writeFileSync } from "node:fs";
import { resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

const [modules, output] = process.argv.slice(2);
const tool = resolve(modules, "@bytecodealliance/componentize-js/src/componentize.js");
const { componentize } = await import(pathToFileURL(tool));
const beside = (name) => fileURLToPath(new URL(name, import.meta.url));
const { component } = await componentize(readFileSync(beside("app.js"), "utf8"), {
  witPath: beside("app.wit"),
  worldName: "app",
});
writeFileSync(output, component);
