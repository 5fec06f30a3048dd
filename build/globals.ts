/**
 * Standard globals that older runtimes lack. esbuild replaces each use of an exported name by the
 * export, so that the globals of the program stay as they are.
 *
 * @module
 */
