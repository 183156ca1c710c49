# shellcheck shell=bash
# How a VM runs. `run` takes this in.

# A CPU that costs little to emulate. Without `erms` and `fsrm` a kernel clears and copies memory by eight bytes at a time.
cpu=max,la57=off,smap=off,smep=off,erms=off,fsrm=off
# What a kernel does for safety or for speed on real hardware, and what costs dearly here. Most of the time goes into translating
# code: where all processes have it at the same addresses, it is translated once (`norandmaps`, nearly half of the time).
quick='norandmaps mitigations=off init_on_alloc=0 transparent_hugepage=never apparmor=0'

# Boots a kernel of which $work/KERNEL/extra holds what it has beside $work/KERNEL/base.cpio, if that is there. A VM that
# ends before all of its tests did is booted a second time, where what has ended is not run again.
vm() {
  local kernel=$1 release=$2 place=$work/$1 report=$cache/logs/$1.log parameters=$3 start=$SECONDS boot
  shift 3
  : >"$report"
  : >"$cache/logs/$kernel.console"
  for boot in first second; do
    echo "=== $boot boot" >>"$report"
    sed -n 's/^=== end \([^ ]*\) .*/\1/p' "$report" >"$place/extra/tests/done"
    { cat "$place/base.cpio" && archive "$place/extra"; } >"$place/initramfs"
    qemu "$kernel" "$release" "$parameters" "$@"
    if grep -q '^=== finished' "$report"; then break; fi
    echo "$kernel: the $boot boot ended before its tests did, see $cache/logs/$kernel.console"
  done
  echo "$kernel took $((SECONDS - start)) s"
}

# One boot, to its end. There is room for a CPU that is not there, which a cgroup can be given and does not have.
qemu() {
  local kernel=$1 release=$2 place=$work/$1 report=$cache/logs/$1.log console=$cache/logs/$1.console parameters=$3
  shift 3
  timeout "$boot_limit" qemu-system-x86_64 -accel tcg,thread=multi -cpu "$cpu" -smp "$cpus,maxcpus=$((cpus + 1))" -m 3072 -display none -no-reboot \
    -nodefaults -pidfile "$place/pid" \
    -chardev "file,id=console,path=$console,append=on" -serial chardev:console \
    -chardev "file,id=report,path=$report,append=on" -serial chardev:report \
    -kernel "$cache/$release/vmlinuz" -initrd "$place/initramfs" \
    -append "console=ttyS0 panic=-1 $quick rdinit=/init time_limit=$binary_limit filter=$filter STOCKADE_TESTS_SLOW=$slowness $parameters" \
    "$@" </dev/null &
  local pid=$!
  while kill -0 "$pid" 2>/dev/null; do
    sleep 1
    if is_stuck "$report"; then
      echo "$kernel: nothing was heard of the VM for too long: it is ended"
      kill "$pid" 2>/dev/null || true
      break
    fi
  done
  wait "$pid" || echo "$kernel: qemu ended with $?"
}

# Whether a VM has not said anything for longer than it may: until its first process runs, and then until a binary ends.
is_stuck() {
  local report=$1 limit=$binary_limit
  if tail -n 1 "$report" | grep -q '^=== .* boot$'; then limit=$start_limit; fi
  [ $(($(date +%s) - $(stat -c %Y "$report"))) -gt $((limit + 60)) ]
}
