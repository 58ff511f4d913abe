// Runs a script in MicroPython for WebAssembly: node run.mjs SCRIPT FILE=PATH...
import { readFileSync } from "node:fs";
import { dirname } from "node:path";
import { loadMicroPython } from "@micropython/micropython-webassembly-pyscript/micropython.mjs";

const [script, ...files] = process.argv.slice(2);
const python = await loadMicroPython({ stdout: (line) => process.stdout.write(line + "\n"), linebuffer: true });
for (const pair of files) {
  const [target, source] = pair.split("=");
  python.FS.mkdirTree(dirname(target));
  python.FS.writeFile(target, readFileSync(source));
}
python.runPython(readFileSync(script, "utf8"));
