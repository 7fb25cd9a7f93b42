import java.io.*;
import java.net.*;
import java.nio.file.*;
import java.security.MessageDigest;
import java.util.*;
import java.util.concurrent.*;
import java.util.concurrent.atomic.*;
import java.util.stream.*;

/** Java: code that is compiled while it runs, garbage collected by threads of its own, pools,
 *  locks, timers, a child process. It says how far it is in the file "progress". */
public class Work {
    static final int ROUNDS = 150;

    /** Sieve, sort and string work: hot enough to be compiled at every level. */
    static long crunch(int seed) {
        Random rnd = new Random(seed);
        boolean[] composite = new boolean[20_000];
        long sum = 0;
        for (int i = 2; i < composite.length; i++) {
            if (composite[i]) continue;
            sum = sum * 31 + i;
            for (int j = 2 * i; j < composite.length; j += i) composite[j] = true;
        }
        int[] a = rnd.ints(5_000).toArray();
        Arrays.sort(a);
        for (int i = 0; i < a.length; i += 97) sum ^= a[i];
        return sum + IntStream.range(0, 300).mapToObj(i -> "s" + (i ^ seed)).collect(Collectors.joining()).hashCode();
    }

    public static void main(String[] args) throws Exception {
        ExecutorService pool = Executors.newFixedThreadPool(4);
        ScheduledExecutorService timer = Executors.newScheduledThreadPool(1);
        AtomicInteger ticks = new AtomicInteger();
        timer.scheduleAtFixedRate(ticks::incrementAndGet, 5, 5, TimeUnit.MILLISECONDS);
        Process cat = new ProcessBuilder("cat").start();
        BufferedWriter to = cat.outputWriter();
        BufferedReader from = cat.inputReader();
        MessageDigest digest = MessageDigest.getInstance("SHA-256");
        Map<Integer, List<String>> heap = new ConcurrentHashMap<>();
        try (PrintWriter progress = new PrintWriter(new FileWriter("progress"), true)) {
            for (int r = 0; r < ROUNDS; r++) {
                final int round = r;
                List<Future<Long>> parts = new ArrayList<>();
                for (int i = 0; i < 8; i++) {
                    final int seed = round * 8 + i;
                    parts.add(pool.submit(() -> {
                        // Garbage, and some that stays for a while.
                        heap.put(seed, IntStream.range(0, 1_500).mapToObj(k -> seed + ":" + k).collect(Collectors.toList()));
                        heap.remove(seed - 120);
                        return crunch(seed);
                    }));
                }
                long sum = 0;
                for (Future<Long> p : parts) sum = sum * 33 + p.get();
                long parallel = IntStream.range(0, 2_000).parallel().mapToLong(i -> (long) i * round % 7).sum();
                to.write(round + " " + sum + "\n");
                to.flush();
                String line = from.readLine();
                digest.update((line + parallel + heap.size()).getBytes());
                Thread.sleep(2);
                progress.println(round);
            }
        }
        to.close();
        int status = cat.waitFor();
        pool.shutdown();
        timer.shutdownNow();
        System.out.println(HexFormat.of().formatHex(digest.digest()) + " " + status
            + (ticks.get() > 10 ? " ticked" : " only " + ticks + " ticks"));
    }
}
