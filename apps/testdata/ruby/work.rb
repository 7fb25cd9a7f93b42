# A Ruby program of every kind of thing that the interpreter keeps outside its
# heap: threads and their timer, fibers, a forked child at the end of a pipe, a
# server and its client, signals.
require "digest"
require "json"
require "socket"

$stdout.sync = true
progress = File.open("progress", "a")
progress.sync = true
step = Thread::Mutex.new
said = ->(what) { step.synchronize { progress.puts what } }

# A child that answers sums through pipes, and dies by a signal it handles.
ask_r, ask_w = IO.pipe
say_r, say_w = IO.pipe
child = fork do
  ask_w.close
  say_r.close
  Signal.trap("TERM") { exit! 7 }
  while (line = ask_r.gets)
    say_w.puts line.split.sum(&:to_i)
    say_w.flush
  end
  sleep
end
ask_r.close
say_w.close

server = TCPServer.new("127.0.0.1", 7415)
serving = Thread.new do
  2.times.map { server.accept }.map do |c|
    Thread.new do
      while (l = c.gets)
        c.puts Digest::SHA256.hexdigest(l)
      end
      c.close
    end
  end.each(&:join)
end

hits = 0
Signal.trap("USR1") { hits += 1 }

numbers = Enumerator.new do |y|
  a, b = 0, 1
  loop { y << a; a, b = b, a + b }
end
queue = Thread::SizedQueue.new(4)
producer = Thread.new { 120.times { |i| queue << [i, numbers.next] }; queue << nil }
sockets = 2.times.map { TCPSocket.new("127.0.0.1", 7415) }
out = []
while (item = queue.pop)
  i, n = item
  store = (0...3000).to_h { |k| ["k#{(k * 7919 + i) % 3001}", "v" * (k % 50)] }
  s = sockets[i % 2]
  s.puts JSON.dump(store)
  ask_w.puts "#{i} #{n % 1000} #{store.size}"
  out << [i, n, s.gets.chomp, say_r.gets.to_i]
  Process.kill("USR1", Process.pid)
  GC.compact if i % 20 == 19
  said.(i)
end
producer.join
sockets.each(&:close)
serving.join
Process.kill("TERM", child)
Process.wait child
hits_seen = hits
puts "child ended with #{$?.exitstatus}; #{hits_seen} signals"
out.each { |o| puts o.join(" ") }
