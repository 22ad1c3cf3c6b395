// How far two files of outputs.ts are apart: tsx compare.ts a b report.json

import { writeFileSync } from 'node:fs'
import { io } from 'gradus'

/** Of the largest magnitude of a result: sums of tensor cores have an order and a precision of their own. */
const bounds: Record<string, number> = { float32: 2e-5, float16: 4e-3, bfloat16: 3e-2 }

async function main(): Promise<void> {
  const [mine, theirs] = await Promise.all([io.loadFile(process.argv[2]!), io.loadFile(process.argv[3]!)])
  const rows = Object.entries(mine).map(([name, x]) => {
    const y = theirs[name]
    if (y === undefined) return { name, equal: false, holds: false, problem: 'not in the other file' }
    if (`${x.shape}` !== `${y.shape}`)
      return { name, equal: false, holds: false, problem: `${x.shape}, not ${y.shape}` }
    const [a, b] = [x.dataSync(), y.dataSync()]
    let [difference, magnitude, different] = [0, 0, 0]
    for (let i = 0; i < b.length; i++) {
      const [p, q] = [Number(a[i]), Number(b[i])]
      if (Object.is(p, q)) continue
      different++
      difference = Number.isNaN(p - q) ? Number.POSITIVE_INFINITY : Math.max(difference, Math.abs(p - q))
    }
    for (const each of b) magnitude = Math.max(magnitude, Math.abs(Number(each)))
    const holds = difference <= (bounds[x.dtype] ?? 0) * magnitude
    return { name, dtype: x.dtype, shape: x.shape, different, difference, magnitude, equal: different === 0, holds }
  })
  for (const name of Object.keys(theirs)) {
    if (!(name in mine)) rows.push({ name, equal: false, holds: false, problem: 'only in the other file' })
  }
  writeFileSync(process.argv[4]!, `${JSON.stringify(rows, null, 1)}\n`)
  if (rows.some(({ holds }) => !holds)) process.exitCode = 1
}

main().catch((error: unknown) => {
  console.error(error)
  process.exitCode = 1
})
