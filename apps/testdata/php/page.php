<?php
// A page that computes, keeps a session in a file, and says what it was sent.
ini_set('session.save_path', dirname(__FILE__) . '/sessions');
session_id($_GET['who']);
session_start();
$_SESSION['n'] = ($_SESSION['n'] ?? 0) + 1;
$_SESSION['sum'] = hash('sha256', ($_SESSION['sum'] ?? '') . $_GET['i'] . file_get_contents('php://input'));
$primes = [];
for ($n = 2; count($primes) < 300; $n++) {
    foreach ($primes as $p) {
        if ($n % $p === 0) continue 2;
    }
    $primes[] = $n;
}
header('Content-Type: text/plain');
echo $_GET['who'], ' ', $_SESSION['n'], ' ', $_SESSION['sum'], ' ', array_sum($primes), "\n";
