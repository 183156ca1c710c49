# The interpreter, which runs in a sandbox before the program does: a loop over a table of system calls.
# It has no stack, no libc, and touches no memory but its slots and what the calls of the table point to, so the same
# code runs as a static image of its own, and in a child that still shares the memory of the caller (CLONE_VM).
#
# Slots, 8 bytes each:  0 discarded results | 1 descriptor of reports | 2 to 5 the report, of which 4 and 5 are the program's own
#                       6 address of the table | 7 tag that is added to the index in a report
#                       8 address of the entry that was begun last | 9.. free
# Entry, 64 bytes:      i16 number | 2 u8 errors that lead to the target, 0: any | u16 slot of the result | u8 slot mask | u8 on error
#                       u64 arguments[6] | u32 target of an error | u32 target of a result above 0
#   slot mask           bit i: argument i is the index of a slot whose value is passed
#   slot of the result  stored if it is not 0, which is what the child of a clone gets that may share the memory, and as
#                       well if the call fails and the program goes on
#   on error            0 write {tag + index, errno, slots 4 and 5} to the descriptor of reports and exit; 1 go on; 2 go to the target if
#                       the error leads there, else as 0; and 128: make the call again if the error is EAGAIN
#   target above 0      index of the next entry if the result is above 0; 0: the next one in the table
#   number              three are no system calls: -3 goes on with the script whose slots are at the first argument, the result of
#                       -4 is its first argument, and -5 goes on with the script whose slots are at the stack pointer: a clone
#                       that shares the memory has nothing else of its own
#
# r13 = slots, r14 = table, r12 = the entry at hand: no system call changes them.

.globl stockade_image_entry
.globl stockade_interpreter_end
.globl stockade_clone3
.globl stockade_clone
.text

# isize stockade_clone3(const struct clone_args *rdi, size_t rsi, u64 *slots rdx)
# The child never returns and never touches the stack: it becomes the interpreter.
stockade_clone3:
  mov   %rdx, %r8
  mov   $435, %eax
  syscall
  test  %rax, %rax
  jnz   2f
  mov   %r8, %r13
  jmp   stockade_interpreter

# isize stockade_clone(u64 flags rdi, int *pidfd rsi, u64 *slots rdx): the same by clone(2)
stockade_clone:
  mov   %rdx, %r9
  mov   %rsi, %rdx
  xor   %esi, %esi
  xor   %r10d, %r10d
  xor   %r8d, %r8d
  mov   $56, %eax
  syscall
  test  %rax, %rax
  jnz   2f
  mov   %r9, %r13
  jmp   stockade_interpreter
2:
  ret

stockade_image_entry:
  mov   $0x410000, %r13d          # where an image has its slots
stockade_interpreter:
  mov   48(%r13), %r14
  mov   %r14, %r12
1:
  .macro argument index, offset, register
    mov   \offset(%r12), \register
    bt    $\index, %r15d
    jnc   3f
    mov   (%r13, \register, 8), \register
  3:
  .endm
  mov   %r12, 64(%r13)
  movzbl 6(%r12), %r15d
  argument 0,  8, %rdi
  argument 1, 16, %rsi
  argument 2, 24, %rdx
  argument 3, 32, %r10
  argument 4, 40, %r8
  argument 5, 48, %r9
  movswl (%r12), %eax
  test  %eax, %eax
  js    11f
10:
  syscall
12:
  cmp   $-4096, %rax
  ja    5f
  test  %rax, %rax
  jz    4f
  movzwl 4(%r12), %ecx
  mov   %rax, (%r13, %rcx, 8)
  mov   60(%r12), %ecx
  test  %ecx, %ecx
  jnz   6f
4:                                # the next entry
  add   $64, %r12
  jmp   1b
5:                                # an error
  mov   %rax, %rsi
  neg   %rsi
  movzbl 7(%r12), %edx
  btr   $7, %edx
  jnc   8f
  cmp   $11, %esi                 # EAGAIN
  je    1b
8:
  test  %edx, %edx
  jz    7f
  cmp   $1, %edx
  je    9f
  movzbl 2(%r12), %ecx
  test  %ecx, %ecx
  jz    9f
  cmp   %ecx, %esi
  je    9f
  movzbl 3(%r12), %ecx
  cmp   %ecx, %esi
  jne   7f
9:                                # the program goes on
  movzwl 4(%r12), %ecx
  mov   %rax, (%r13, %rcx, 8)
  cmp   $1, %edx
  je    4b
  mov   56(%r12), %ecx
  jmp   6f
7:                                # it is reported, with the slots as they were
  neg   %rax
  mov   %rax, 24(%r13)
  mov   %r12, %rcx
  sub   %r14, %rcx
  shr   $6, %rcx
  add   56(%r13), %rcx
  mov   %rcx, 16(%r13)
  mov   8(%r13), %rdi
  lea   16(%r13), %rsi
  mov   $32, %edx
  mov   $1, %eax                  # write
  syscall
  mov   $127, %edi
  mov   $231, %eax                # exit_group
  syscall
6:                                # the entry with index ecx
  shl   $6, %rcx
  lea   (%r14, %rcx), %r12
  jmp   1b
11:                               # no system call
  cmp   $-3, %eax
  je    13f
  cmp   $-5, %eax
  je    14f
  cmp   $-4, %eax
  jne   10b
  mov   %rdi, %rax
  jmp   12b
13:
  mov   %rdi, %r13
  jmp   stockade_interpreter
14:
  mov   %rsp, %r13
  jmp   stockade_interpreter
stockade_interpreter_end:
  .purgem argument
