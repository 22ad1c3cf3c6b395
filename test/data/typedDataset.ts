// A dataset in TypeScript, with syntax that needs more than leaving out the types.

export class Typed {
  constructor(readonly length: number) {}

  get(index: number): { index: number } {
    return { index }
  }

  toWorker() {
    return { module: __filename, name: 'Typed', args: [this.length] }
  }
}
