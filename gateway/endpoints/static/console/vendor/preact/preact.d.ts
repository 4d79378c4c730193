// Ours, not preact's: what the console uses of it, so that the compiler need not read the minified module.
export function h(type: any, props: any, ...children: any[]): any
export function render(view: any, parent: Element): void
export const Fragment: any
