# Perl at text work: hashes, sort, regular expressions, sprintf, a forked worker
# on a pipe, open to a command, an alarm that ticks meanwhile, local signals.
use strict;
use warnings;
use IO::Handle;
use Time::HiRes qw(ualarm);
use Socket;

my $ticks = 0;
$SIG{ALRM} = sub { $ticks++ };
ualarm(20_000, 20_000);

# A worker on a socket pair: it gets words, and gives them back reversed.
socketpair(my $here, my $there, AF_UNIX, SOCK_STREAM, PF_UNSPEC) or die "socketpair: $!";
$_->autoflush(1) for $here, $there;
my $worker = fork // die "fork: $!";
if (!$worker) {
    close $here;
    $SIG{ALRM} = 'IGNORE';
    while (my $line = <$there>) {
        chomp $line;
        print $there scalar reverse($line), "\n";
    }
    exit 3;
}
close $there;

open(my $progress, '>', 'progress') or die "progress: $!";
$progress->autoflush(1);

# A text that a small generator writes.
my $seed = 12345;
sub rnd { $seed = ($seed * 1103515245 + 12345) % 2147483648; return int($seed / 65536) % $_[0] }
my @syllables = qw(ba ce di fo gu ka le mi no pu ra se ti vo zu);
my (%count, %index, @lines);
for my $round (1 .. 180) {
    for (1 .. 120) {
        my $line = join ' ', map { join '', map { $syllables[rnd(15)] } 1 .. 1 + rnd(3) } 1 .. 12;
        push @lines, $line;
        $count{$_}++ for split ' ', $line;
        while ($line =~ /\b((\w\w)(?:\w\w)*\2)\b/g) { $index{$1}{$round}++ }
    }
    my @top = (sort { $count{$b} <=> $count{$a} || $a cmp $b } keys %count)[0 .. 9];
    print $here "@top\n";
    my $answer = <$here>;
    chomp $answer;
    $answer =~ s/(\w+)/ucfirst $1/ge;
    $count{lc $_}++ for split ' ', $answer;
    if ($round % 18 == 0) {
        open(my $sum, '-|', "printf '%s\\n' @top | cksum") or die "cksum: $!";
        my $line = <$sum>;
        close $sum or die "cksum failed: $?";
        print "$round: $line";
    }
    print $progress "$round\n";
}
close $here;
# Signals interrupt waitpid: that is perl's business, not an error.
1 while waitpid($worker, 0) < 0 && $!{EINTR};
printf "worker ended with %d\n", $? >> 8;
ualarm(0);
printf "%d lines, %d words, %d repeated, the alarm %s\n", scalar @lines, scalar keys %count, scalar keys %index,
    $ticks > 5 ? 'ticked' : "ticked only $ticks times";
my $sum = 0;
for my $w (sort keys %count) { $sum = ($sum * 31 + $count{$w} * length $w) % 1_000_000_007 }
for my $w (sort keys %index) { $sum = ($sum * 33 + $_) % 1_000_000_007 for sort { $a <=> $b } keys %{$index{$w}} }
print "sum $sum\n";
