// Every row of PyTorch's autocast tables (test/fixtures/autocast.json): the cpu tables as measured, with the same calls;
// the cuda lists as data.

import { join } from 'node:path'
import { amp, getDefaultDevice, tensor } from 'gradus'
import { describe, expect, test } from 'vitest'
import { autocastPolicies } from '../../lib/ops/autocastPolicy'
import {
  autocastCalls,
  checkAutocastRow,
  checkDocumentedRow,
  checkMixedAutocastRow,
  mixedAutocastCalls,
  readAutocastTables,
} from '../../scripts/parity/autocast'

const tables = readAutocastTables(join(__dirname, '../fixtures'))
const onCuda = getDefaultDevice().type === 'cuda'

test('every row is called', () => {
  expect(Object.keys(autocastCalls)).toEqual(Object.keys(tables.cpu_measured))
  expect(Object.keys(mixedAutocastCalls)).toEqual(Object.keys(tables.cpu_mixed_inputs_measured))
})

test('float64 stays', () => {
  const double = tensor(
    Array.from({ length: 4 }, (_, i) => [0.5, 1, i + 2, 0.25]),
    { dtype: 'float64' },
  )
  for (const [name, call] of Object.entries(autocastCalls)) {
    expect([name, amp.autocast(() => call(double)).dtype]).toEqual([name, 'float64'])
  }
})

if (!onCuda) {
  describe('cpu, as measured', () => {
    test.each(Object.entries(tables.cpu_measured))('%s', (name, row) => checkAutocastRow(name, row))
    test.each(Object.entries(tables.cpu_mixed_inputs_measured))('%s of two dtypes', (name, row) =>
      checkMixedAutocastRow(name, row),
    )
  })
}

describe('cuda, as documented', () => {
  const camelCase = (name: string): string =>
    name.replace(/_\*$/, '').replace(/_(\w)/g, (_, letter) => letter.toUpperCase())
  const names = new Set([...Object.keys(autocastCalls), ...Object.keys(mixedAutocastCalls)])
  if (onCuda) test.each([...names])('the results of %s', (name) => checkDocumentedRow(name, tables.cuda_documented))

  const { lower_precision, fp32, fp32_output_via_dtype_argument, promote_widest } = tables.cuda_documented

  test.each([
    ['lower', lower_precision!],
    ['float32', [...fp32!, ...fp32_output_via_dtype_argument!]],
    ['promote', promote_widest!],
  ] as const)('%s', (policy, names) => {
    for (const name of names) expect([name, autocastPolicies.cuda.get(camelCase(name))]).toEqual([name, policy])
  })
})
