// What each of node-postgres' tests came to, in the form of outcomes.py. Its suites print a name before each test and a tick after
// it, and end with the first that fails; a file that has no suite is a test as a whole.
import { spawnSync } from 'node:child_process'
import { appendFileSync, readdirSync } from 'node:fs'
import { join } from 'node:path'

const [directory] = process.argv.slice(2)
const files = readdirSync(directory, { recursive: true }).filter((file) => file.endsWith('-tests.js')).sort()

function tell(outcome, name, reason = '') {
  const words = [name, reason].map((text) => text.replace(/\s+/g, ' ').trim())
  appendFileSync(process.env.SUITE_OUTCOMES, [outcome, words[0], words[1].slice(0, 400)].join('\t') + '\n')
}

for (const file of files) {
  const run = spawnSync('node', [join(directory, file)], { encoding: 'utf8', timeout: 60_000, killSignal: 'SIGKILL' })
  console.log(`== ${file} ${run.status}\n${run.stdout}${run.stderr}`)
  const ticks = [...run.stdout.matchAll(/^ {2}(.*?) ✔$/gm)].map((match) => match[1])
  ticks.forEach((name) => tell('passed', `${file} ${name}`))
  if (run.status !== 0) {
    const after = run.stdout.slice(run.stdout.lastIndexOf('✔') + 1).trim()
    const lines = (after + '\n' + run.stderr).trim().split('\n')
    const begun = after.match(/^(.*?) FAILED!/m)?.[1] ?? after.match(/^test: (.*) did not complete/m)?.[1]
    tell('failed', begun ? `${file} ${begun}` : file, lines.slice(0, 6).join(' '))
  } else if (ticks.length === 0) {
    tell('passed', file)
  }
}
