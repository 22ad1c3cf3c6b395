// What a profiler hears of ranges: a tool of a few lines stands in for one, loaded as NVTX loads them.
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { ArgumentError, cuda } from '../../lib/index'

const folder = mkdtempSync(join(tmpdir(), 'gradus-nvtx-'))
const [library, log] = [join(folder, 'tool.so'), join(folder, 'log.txt')]

const tool = `
#include <stdio.h>
#include <stdint.h>
static void say(const char* what, const char* text) {
  FILE* file = fopen("${log}", "a");
  fprintf(file, "%s %s\\n", what, text);
  fclose(file);
}
static int push(const char* text) { say("push", text); return 0; }
static int pop(void) { say("pop", ""); return 0; }
static void mark(const char* text) { say("mark", text); }
struct Callbacks { size_t bytes; int (*functions)(int, void****, unsigned*); };
int InitializeInjectionNvtx2(const void* (*table)(uint32_t)) {
  void*** core = 0;
  unsigned count = 0;
  const struct Callbacks* callbacks = table(1);
  if (!callbacks || !callbacks->functions(1, &core, &count) || count < 12) return 0;
  *core[2] = (void*)mark;
  *core[9] = (void*)push;
  *core[11] = (void*)pop;
  return 1;
}`

beforeAll(() => {
  const { status, stderr } = spawnSync('cc', ['-shared', '-fPIC', '-x', 'c', '-o', library, '-'], {
    input: tool,
    encoding: 'utf8',
  })
  expect([status, stderr]).toEqual([0, ''])
})
afterAll(() => rmSync(folder, { recursive: true }))

describe('cuda.nvtx', () => {
  it('tells a profiler of ranges and marks, in order', () => {
    const script = `
      const { cuda, ones } = require('./dist')
      cuda.nvtx.rangePush('step')
      cuda.nvtx.range('forward', () => ones([1], { device: 'cuda' }).add(1))
      cuda.nvtx.mark('now')
      cuda.nvtx.rangePop()
      cuda.synchronize().then(() => console.log('done'))`
    const { stdout, stderr } = spawnSync(process.execPath, ['-e', script], {
      encoding: 'utf8',
      env: { ...process.env, NVTX_INJECTION64_PATH: library },
    })
    expect([stdout, stderr]).toEqual(['done\n', ''])
    expect(readFileSync(log, 'utf8')).toBe('push step\npush forward\npop \nmark now\npop \n')
  })

  it('does nothing without one, and refuses what is no text', () => {
    expect(cuda.nvtx.range('x', () => 3)).toBe(3)
    expect(() => cuda.nvtx.rangePush(3 as never)).toThrow(ArgumentError)
    expect(() => cuda.nvtx.mark('x', 'cpu')).toThrow(/nvtx.mark: not a CUDA device: got cpu/)
  })
})
