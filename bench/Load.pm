
# Whether the machine is ours alone while something is measured.
#
# Two things make figures worse that are not the contestants' doing: the
# hypervisor gives the processors to other machines (steal time), and other
# processes of this machine use them.  Both are measured for each round, in
# percent of what all processors had to give.  A round with more than a little of
# one of them is marked in the results as not to be trusted.
#
# Ours is what the server, this process, the clients and peers that it has started
# and the kernel's threads use.  All else that was neither idle nor stolen belongs
# to others; the kernel's handling of interrupts is in it, but takes little.

package Load;

use strict;
use warnings;

use Bench;
use Exporter 'import';
use List::Util qw(max sum0);
use POSIX      ();
use Server;
use Time::HiRes qw(time);

our @EXPORT = qw(load_now load_since trusted);

# Percent of the processors' time.
my $too_much = 5;

my $ticks = POSIX::sysconf(POSIX::_SC_CLK_TCK());

# Seconds of all processors so far, and the time.
sub load_now
{
	open my $file, '<', '/proc/stat' or die "/proc/stat: $!\n";
	my (undef, @of) = split ' ', readline $file;
	close $file;

	# (Fields: user, nice, system, idle, iowait, irq, softirq, steal.)
	return {
		time   => time(),
		unused => ($of[3] + $of[4]) / $ticks,
		steal  => ($of[7] || 0) / $ticks,
		ours   => server_cpu() + clients_cpu(),
		kernel => kernel_threads()
	};
}

# Of this process, and of its children that have ended and that are there.
sub clients_cpu
{
	return sum0(times(),
		map { sum0(@$_[ 11 .. 14 ]) / $ticks }
		grep { $_->[1] == $$ } values %{ processes() });
}

# Of each of the kernel's threads, whose parent is process 2.
sub kernel_threads
{
	my $processes = processes();

	my %of = map { $_ => sum0(@{ $processes->{$_} }[ 11, 12 ]) / $ticks }
	  grep { $processes->{$_}[1] == 2 } keys %$processes;

	return \%of;
}

# Returns what was stolen and what others have used since load_now(), in percent.
sub load_since
{
	my ($before) = @_;
	my $now = load_now();
	my %used =
	  map { $_ => $now->{$_} - $before->{$_} } qw(time unused steal ours);
	my $all = $used{time} * $cores || 1;

	# (Threads come and go, with all that they have ever used.)
	$used{kernel} = sum0(
		map { max(0, $now->{kernel}{$_} - ($before->{kernel}{$_} // 0)) }
		  keys %{ $now->{kernel} });

	return {
		steal  => 100 * $used{steal} / $all,
		others => max(
			0, 100 - 100 * sum0(@used{qw(unused steal ours kernel)}) / $all)
	};
}

sub trusted
{
	my ($load) = @_;

	return $load->{steal} <= $too_much && $load->{others} <= $too_much;
}

1;
