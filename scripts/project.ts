/**
 * Makes a project outside the repository that has the packed package.
 *
 * The project has the dependencies and peers that the manifest declares, and no other package that the library could
 * import. They are links to those of the repository, so that nothing is downloaded.
 */
import { execFile } from "node:child_process"
import { cp, mkdir, readFile, symlink, writeFile } from "node:fs/promises"
import { dirname, join } from "node:path"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"

export const root = fileURLToPath(new URL("..", import.meta.url))

const manifest: {
  readonly dependencies: Readonly<Record<string, string>>
  readonly peerDependencies: Readonly<Record<string, string>>
} = JSON.parse(await readFile(join(root, "package.json"), "utf8"))

/** Runs a command, and returns its output. */
export const run = async (
  command: string,
  args: ReadonlyArray<string>,
  cwd: string,
  env: Readonly<Record<string, string>> = {}
): Promise<string> => {
  const { stdout } = await promisify(execFile)(command, args, {
    cwd,
    env: { ...process.env, ...env },
    maxBuffer: 2 ** 26
  }).catch((error) => {
    throw new Error(`${[command, ...args].join(" ")}\n${error.stdout}${error.stderr}`)
  })
  return stdout
}

/** Installs the package and more packages of the repository, with programs in `src`. */
export const install = async (project: string, programs: string, more: ReadonlyArray<string>) => {
  const packed = await run("npm", ["pack", "--ignore-scripts", "--silent", "--pack-destination", project], root)
  const target = join(project, "node_modules/effect-realtime")
  await mkdir(target, { recursive: true })
  await run("tar", ["-xzf", join(project, packed.trim()), "-C", target, "--strip-components=1"], project)
  for (const name of [...Object.keys(manifest.dependencies), ...Object.keys(manifest.peerDependencies), ...more]) {
    const link = join(project, "node_modules", name)
    await mkdir(dirname(link), { recursive: true })
    await symlink(join(root, "node_modules", name), link)
  }
  await writeFile(join(project, "package.json"), JSON.stringify({ private: true, type: "module" }))
  await cp(programs, join(project, "src"), { recursive: true })
}
