// Ours, not htm's: what the console uses of it, so that the compiler need not read the minified module.
declare const htm: { bind(h: any): any }
export default htm
