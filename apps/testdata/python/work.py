"""A long computation over a large heap, with threads, a pool of processes and
child programs. It says how far it is in the file "progress" and prints digests
of all that it computed."""
import array
import hashlib
import multiprocessing
import queue
import random
import subprocess
import threading

ROUNDS = 80


def factor_sum(args):
    """Work for a pool process: real arithmetic, with the pool's own pid unseen."""
    seed, n = args
    rnd = random.Random(seed)
    total = 0
    for _ in range(n):
        x = rnd.getrandbits(24) | 1
        d = 3
        while d * d <= x and x % d:
            d += 2
        total = (total * 31 + d) % (1 << 61)
    return total


def main():
    rnd = random.Random(4711)
    # About 100 MB: many small objects, one large array, long strings.
    table = {i: (rnd.random(), str(i) * 3) for i in range(200_000)}
    numbers = array.array("d", (rnd.random() for _ in range(1_000_000)))
    blocks = [rnd.randbytes(1 << 18) for _ in range(64)]

    todo, done = queue.Queue(4), queue.Queue()

    def thread():
        while True:
            job = todo.get()
            if job is None:
                return
            n, block = job
            h = hashlib.sha256(blocks[block])
            for v in numbers[n * 100:n * 100 + 2000]:
                h.update(repr(v).encode())
            done.put((n, h.hexdigest()))

    threads = [threading.Thread(target=thread, name=f"worker-{i}") for i in range(4)]
    for t in threads:
        t.start()

    child = subprocess.Popen(["sh", "-c", "while read x; do echo $((x * 7 + 1)); done"],
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
    digest = hashlib.sha256()
    with multiprocessing.Pool(3) as pool, open("progress", "w", buffering=1) as progress:
        for r in range(ROUNDS):
            for k in range(8):
                todo.put((r * 8 + k, (r + k) % len(blocks)))
            sums = pool.map(factor_sum, [(r * 10 + i, 40) for i in range(6)])
            child.stdin.write(f"{r}\n")
            answer = child.stdout.readline()
            hashes = sorted(done.get() for _ in range(8))
            # Churn in the heap: entries go and come.
            for i in range(r * 1000, r * 1000 + 1000):
                v, s = table.pop(i)
                table[-i] = (v + sums[i % 6] % 97, s + answer.strip())
            digest.update(repr((sums, answer, hashes)).encode())
            progress.write(f"{r}\n")
    for _ in threads:
        todo.put(None)
    for t in threads:
        t.join()
    child.stdin.close()
    assert child.wait() == 0
    for k in sorted(table):
        digest.update(repr((k, table[k])).encode())
    print(digest.hexdigest(), len(table), f"{sum(numbers):.9f}")


if __name__ == "__main__":
    main()
