// The golden cases recorded from PyTorch and transformers that the library covers: the same as
// `npm run parity -- test/fixtures --through 1`.

import { join } from 'node:path'
import { expect, test } from 'vitest'
import { Fixtures } from '../../scripts/parity/fixtures'
import { runCase } from '../../scripts/parity/run'

const stage = 1
const fixtures = new Fixtures(join(__dirname, '../fixtures'))

test.each(
  fixtures.cases.filter((each) => each.stage <= stage).map((each) => [`${each.group}/${each.name}`, each] as const),
)('%s', async (_, each) => {
  const { problem, status } = await runCase(each, fixtures, true)
  expect(problem).toBeUndefined()
  expect(status).toBe('passed')
})
