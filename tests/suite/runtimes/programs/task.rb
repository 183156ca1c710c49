require "socket"

$stdout.sync = true
case ARGV[0]
when "hello" then puts "hello"
when "thread" then Thread.new { puts "thread" }.join
when "subprocess" then system("echo", "child", exception: true)
when "resolve" then puts Addrinfo.getaddrinfo(Socket.gethostname, nil)[0].ip_address
when "memory"
  taken = []
  loop { taken << "x" * (1 << 20) }
end
