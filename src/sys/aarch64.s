// The interpreter, which runs in a sandbox before the program does: a loop over a table of system calls.
// It has no stack, no libc, and touches no memory but its slots and what the calls of the table point to, so the same
// code runs as a static image of its own, and in a child that still shares the memory of the caller (CLONE_VM).
//
// Slots, 8 bytes each:  0 discarded results | 1 descriptor of reports | 2 to 5 the report, of which 4 and 5 are the
//                       program's own
//                       6 address of the table | 7 tag that is added to the index in a report
//                       8 address of the entry that was begun last | 9.. free
// Entry, 64 bytes:      i16 number | 2 u8 errors that lead to the target, 0: any | u16 slot of the result | u8 slot mask | u8 on error
//                       u64 arguments[6] | u32 target of an error | u32 target of a result above 0
//   slot mask           bit i: argument i is the index of a slot whose value is passed
//   slot of the result  stored if it is not 0, which is what the child of a clone gets that may share the memory, and
//                       as well if the call fails and the program goes on
//   on error            0 write {tag + index, errno, slots 4 and 5} to the descriptor of reports and exit; 1 go on;
//                       2 go to the target if the error leads there, else as 0; and 128: make the call again if the
//                       error is EAGAIN
//   target above 0      index of the next entry if the result is above 0; 0: the next one in the table
//   number              three are no system calls: -3 goes on with the script whose slots are at the first argument, the
//                       result of -4 is its first argument, and -5 goes on with the script whose slots are at the stack
//                       pointer: a clone that shares the memory has nothing else of its own
//
// x20 = slots, x21 = table, x19 = the entry at hand: no system call changes them.

.globl stockade_image_entry
.globl stockade_interpreter_end
.globl stockade_clone3
.globl stockade_clone
.text

// isize stockade_clone3(const struct clone_args *x0, size_t x1, u64 *slots x2)
// The child never returns and never touches the stack: it becomes the interpreter.
stockade_clone3:
  mov   x9, x2
  mov   x8, #435
  svc   #0
  cbnz  x0, 2f
  mov   x20, x9
  b     stockade_interpreter

// isize stockade_clone(u64 flags x0, int *pidfd x1, u64 *slots x2): the same by clone(2)
stockade_clone:
  mov   x9, x2
  mov   x2, x1
  mov   x1, xzr
  mov   x3, xzr
  mov   x4, xzr
  mov   x8, #220
  svc   #0
  cbnz  x0, 2f
  mov   x20, x9
  b     stockade_interpreter
2:
  ret

stockade_image_entry:
  mov   x20, #0x410000            // where an image has its slots
stockade_interpreter:
  ldr   x21, [x20, #48]
  mov   x19, x21
1:
  .macro argument index, offset, register
    ldr   \register, [x19, #\offset]
    tbz   w22, #\index, 3f
    ldr   \register, [x20, \register, lsl #3]
  3:
  .endm
  str   x19, [x20, #64]
  ldrb  w22, [x19, #6]
  argument 0,  8, x0
  argument 1, 16, x1
  argument 2, 24, x2
  argument 3, 32, x3
  argument 4, 40, x4
  argument 5, 48, x5
  ldrsh w8, [x19]
  tbnz  w8, #31, 11f
10:
  svc   #0
12:
  ldrh  w10, [x19, #4]
  cmn   x0, #4095                 // x0 >= -4095, unsigned: an error
  b.hs  5f
  cbz   x0, 4f
  str   x0, [x20, x10, lsl #3]
  ldr   w10, [x19, #60]
  cbnz  w10, 6f
4:                                // the next entry
  add   x19, x19, #64
  b     1b
5:                                // an error
  neg   x12, x0
  ldrb  w11, [x19, #7]
  tbz   w11, #7, 8f
  cmp   w12, #11                  // EAGAIN
  b.eq  1b
  and   w11, w11, #0x7f
8:
  cbz   w11, 7f
  cmp   w11, #1
  b.eq  9f
  ldrb  w13, [x19, #2]
  cbz   w13, 9f
  cmp   w13, w12
  b.eq  9f
  ldrb  w13, [x19, #3]
  cmp   w13, w12
  b.ne  7f
9:                                // the program goes on
  str   x0, [x20, x10, lsl #3]
  cmp   w11, #1
  b.eq  4b
  ldr   w10, [x19, #56]
  b     6f
7:                                // it is reported, with the slots as they were
  neg   x0, x0
  str   x0, [x20, #24]
  sub   x10, x19, x21
  lsr   x10, x10, #6
  ldr   x11, [x20, #56]
  add   x10, x10, x11
  str   x10, [x20, #16]
  ldr   x0, [x20, #8]
  add   x1, x20, #16
  mov   x2, #32
  mov   x8, #64                   // write
  svc   #0
  mov   x0, #127
  mov   x8, #94                   // exit_group
  svc   #0
6:                                // the entry with index w10
  add   x19, x21, x10, lsl #6
  b     1b
11:                               // no system call
  cmn   w8, #3
  b.eq  13f
  cmn   w8, #5
  b.eq  14f
  cmn   w8, #4
  b.eq  12b                       // the first argument is where results are
  b     10b
13:
  mov   x20, x0
  b     stockade_interpreter
14:
  mov   x20, sp
  b     stockade_interpreter
stockade_interpreter_end:
  .purgem argument
