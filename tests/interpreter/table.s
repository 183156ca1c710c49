/*
 * A table for the interpreter alone, in directives that every architecture's assembler knows. The numbers of the system
 * calls come as symbols: WRITE, CLOSE, READ, TIMER_CREATE, TIMER_SET, EXIT_GROUP.
 *
 * It writes "abcd", one letter for each way through the table, then a report of 24 bytes, and exits with 127.
 */

.macro entry number, store, mask, on_error, a=0, b=0, c=0, d=0, e=0, f=0, target=0, only=0, or=0, above=0
  .long \number
  .short \store
  .byte \mask, \on_error
  .quad \a, \b, \c, \d, \e, \f
  .short \target
  .byte \only, \or
  .long \above
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
  .quad 1  /* 0: where it begins, then discarded results */
  .quad 1  /* 1: where reports go */
  .quad 0, 0  /* 2, 3: the report */
  .quad 77  /* 4: what it brings along, which a result of 0 leaves alone */
  .quad table  /* 5 */
  .quad 0x500000000  /* 6: tag */
  .quad 0  /* 7: results */
  .quad letter_b  /* 8: an argument */
  .quad 0  /* 9: a timer */
table:
  entry WRITE, 7, 0, FAIL, 1, letter_x, 1  /* 0: before the beginning */
  entry WRITE, 7, 0, FAIL, 1, letter_a, 1, above=3  /* 1: a result above 0 goes on elsewhere */
  entry WRITE, 7, 0, FAIL, 1, letter_x, 1  /* 2: passed over */
  entry CLOSE, 7, 0, IGNORE, NOWHERE  /* 3: an error that is ignored */
  entry WRITE, 7, 2, FAIL, 1, 8, 1  /* 4: an argument from a slot */
  entry CLOSE, 7, 0, GOTO, NOWHERE, target=7  /* 5: an error that goes on elsewhere */
  entry WRITE, 7, 0, FAIL, 1, letter_x, 1  /* 6: passed over */
  entry CLOSE, 7, 0, GOTO, NOWHERE, target=9, only=ENOENT, or=EBADF  /* 7: if it is one of these */
  entry WRITE, 7, 0, FAIL, 1, letter_x, 1  /* 8: passed over */
  entry WRITE, 7, 0, FAIL, 1, letter_c, 1  /* 9 */
  entry TIMER_CREATE, 9, 0, FAIL, 1, 0x800  /* 10: CLOCK_MONOTONIC, TFD_NONBLOCK */
  entry TIMER_SET, 4, 1, FAIL, 9, 0, in_20_ms, 0  /* 11 */
  entry READ, 7, 1, FAIL+AGAIN, 9, buffer, 8  /* 12: EAGAIN until the timer has fired */
  entry WRITE, 7, 0, FAIL, 1, letter_d, 1  /* 13 */
  entry CLOSE, 7, 0, GOTO, NOWHERE, target=15, only=ENOENT, or=EAGAIN  /* 14: it is another one, and is reported */
  entry WRITE, 7, 0, FAIL, 1, letter_x, 1  /* 15: not reached */
  entry EXIT_GROUP, 7, 0, FAIL, 0  /* 16: not reached */
in_20_ms:
  .quad 0, 0, 0, 20000000
buffer:
  .quad 0
letter_a: .ascii "a"
letter_b: .ascii "b"
letter_c: .ascii "c"
letter_d: .ascii "d"
letter_x: .ascii "x"
