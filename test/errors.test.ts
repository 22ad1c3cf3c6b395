import { expect, it } from 'vitest'
import { amp, autograd, nn, ones, optim } from '../lib/index'

// V8 keeps ten frames, and the library's own may be more.
it('errors show the line of the caller, however deep they are found', () => {
  const linear = new nn.Linear(2, 2)
  const used = linear.forward(ones([1, 2])).sum()
  used.backward()
  const optimizer = new optim.SGD([ones([1]).requiresGrad_(true)])
  const calls = [
    function callerOfPlainBackward() {
      ones([2]).sum().backward()
    },
    function callerOfSecondBackward() {
      used.backward()
    },
    function callerOfStep() {
      new amp.GradScaler().step(optimizer)
    },
    function callerOfSequential() {
      autograd.checkpointSequential([linear, linear], 2, ones([2, 7]))
    },
  ]
  for (const call of calls) {
    let error: unknown
    try {
      call()
    } catch (thrown) {
      error = thrown
    }
    expect((error as Error).stack).toContain(call.name)
    expect((error as Error).stack).toMatch(new RegExp(`^${(error as Error).name}: `))
  }
})

it('errors have no stack where the program asked for none', () => {
  const limit = Error.stackTraceLimit
  Error.stackTraceLimit = 0
  try {
    expect(() => ones([2, 3]).matmul(ones([2, 3]))).toThrow(
      expect.objectContaining({ stack: expect.not.stringContaining('\n    at ') }),
    )
  } finally {
    Error.stackTraceLimit = limit
  }
})
