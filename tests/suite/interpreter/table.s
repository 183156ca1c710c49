/*
 * A table for the interpreter alone, in directives that every architecture's assembler knows. The numbers of the system
 * calls come as symbols: WRITE, CLOSE, READ, TIMER_CREATE, TIMER_SET, EXIT_GROUP.
 *
 * It writes "abcd", one letter for each way through the table, then a report of 32 bytes, and exits with 127.
 */

.macro entry number, store, mask, on_error, a=0, b=0, c=0, d=0, e=0, f=0, target=0, only=0, or=0, above=0
  .short \number
  .byte \only, \or
  .short \store
  .byte \mask, \on_error
  .quad \a, \b, \c, \d, \e, \f
  .long \target, \above
.endm

.set FAIL, 0
.set IGNORE, 1
.set GOTO, 2
.set AGAIN, 128
.set NOWHERE, 9999
.set EBADF, 9
.set ENOENT, 2
.set EAGAIN, 11

.section .memory, "aw"
slots:
  .quad 0  /* 0: discarded results */
  .quad 1  /* 1: where reports go */
  .quad 0, 0  /* 2, 3: the report */
  .quad 77, 78  /* 4, 5: what it brings along, which a result of 0 leaves alone */
  .quad table  /* 6 */
  .quad 0x500000000  /* 7: tag */
  .quad 0  /* 8: results */
  .quad letter_b  /* 9: an argument */
  .quad 0  /* 10: a timer */
table:
  entry WRITE, 8, 0, FAIL, 1, letter_a, 1, above=2  /* 0: a result above 0 goes on elsewhere */
  entry WRITE, 8, 0, FAIL, 1, letter_x, 1  /* 1: passed over */
  entry CLOSE, 8, 0, IGNORE, NOWHERE  /* 2: an error that is ignored */
  entry WRITE, 8, 2, FAIL, 1, 9, 1  /* 3: an argument from a slot */
  entry CLOSE, 8, 0, GOTO, NOWHERE, target=6  /* 4: an error that goes on elsewhere */
  entry WRITE, 8, 0, FAIL, 1, letter_x, 1  /* 5: passed over */
  entry CLOSE, 8, 0, GOTO, NOWHERE, target=8, only=ENOENT, or=EBADF  /* 6: if it is one of these */
  entry WRITE, 8, 0, FAIL, 1, letter_x, 1  /* 7: passed over */
  entry WRITE, 8, 0, FAIL, 1, letter_c, 1  /* 8 */
  entry TIMER_CREATE, 10, 0, FAIL, 1, 0x800  /* 9: CLOCK_MONOTONIC, TFD_NONBLOCK */
  entry TIMER_SET, 4, 1, FAIL, 10, 0, in_20_ms, 0  /* 10 */
  entry READ, 8, 1, FAIL+AGAIN, 10, buffer, 8  /* 11: EAGAIN until the timer has fired */
  entry WRITE, 8, 0, FAIL, 1, letter_d, 1  /* 12 */
  entry CLOSE, 8, 0, GOTO, NOWHERE, target=14, only=ENOENT, or=EAGAIN  /* 13: it is another one, and is reported */
  entry WRITE, 8, 0, FAIL, 1, letter_x, 1  /* 14: not reached */
  entry EXIT_GROUP, 8, 0, FAIL, 0  /* 15: not reached */
in_20_ms:
  .quad 0, 0, 0, 20000000
buffer:
  .quad 0
letter_a: .ascii "a"
letter_b: .ascii "b"
letter_c: .ascii "c"
letter_d: .ascii "d"
letter_x: .ascii "x"
