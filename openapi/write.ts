/** Writes the contract to the file that is committed. Run it from the top of the repository after a change of routes. */
import { writeFile } from 'node:fs/promises'
import { asText, contractDocument } from './document.js'

const FILE = 'openapi/understudy.json'

await writeFile(FILE, asText(await contractDocument()))
process.stdout.write(`${FILE} written\n`)
