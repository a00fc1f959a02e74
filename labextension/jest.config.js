const esModules = [
  '@codemirror',
  '@jupyter/',
  '@jupyterlab/',
  '@lezer/',
  '@marijn/',
  '@microsoft/fast',
  '@rjsf/',
  'exenv-es6',
  'lib0',
  'nanoid',
  'style-mod',
  'uplot',
  'vscode-ws-jsonrpc',
  'w3c-keyname',
  'y-protocols',
  'yjs'
].join('|');

module.exports = {
  testEnvironment: 'jsdom',
  testRegex:
    'src/.*/__tests__/.*\\.spec\\.tsx?$|src/__tests__/.*\\.spec\\.tsx?$',
  testPathIgnorePatterns: ['/node_modules/', '/lib/'],
  moduleNameMapper: {
    '\\.(css|less|sass|scss)$': 'identity-obj-proxy',
    '\\.svg$': '<rootDir>/jest/svg.js'
  },
  setupFiles: ['<rootDir>/jest/browser.js'],
  transform: { '\\.[jt]sx?$': 'babel-jest' },
  transformIgnorePatterns: [`/node_modules/(?!(${esModules}))`],
  collectCoverageFrom: ['src/**/*.{ts,tsx}', '!src/**/*.d.ts'],
  coverageReporters: ['text', 'lcov']
};
