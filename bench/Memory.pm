
# Whether memory grows.
#
# What a process has for itself (Private_* of smaps_rollup, so without the
# server's shared memory), of each worker and of the scheduler, looked at after
# every so many runs.  A worker leaves after 1,000,000 runs, whatever it has
# used, and another comes in its place; so it is judged by what the one that was
# there longest had at first and at last, and by the largest of all.  The scheduler
# is one and the same throughout.  Last, the scheduler of a database with many
# tasks that are due much later.

package Memory;

use strict;
use warnings;

use Bench;
use Contestants;
use List::Util qw(max);
use Server;

sub measure
{
	my ($n, $chunk) = @size{qw(memory memory_chunk)};
	my $database = database('taskshed');
	my (%samples, @pids);

	enabled($database, 1);
	no_workers();
	for (my $done = 0; $done < $n; $done += $chunk)
	{
		note("  $done of $n runs") if $done % (5 * $chunk) == 0;
		run($database, $chunk);
		foreach my $who ('scheduler', 'worker')
		{
			foreach my $pid (
				pids(
					"backend_type = 'taskshed $who' AND datname = '$database'"
				))
			{
				my $mb = private_mb($pid);

				die "the system does not tell what memory is private\n"
				  if !defined $mb;
				push @{ $samples{$who}{$pid} }, $mb;
			}
		}
	}
	foreach my $who ('scheduler', 'worker')
	{
		my $of  = $samples{$who};
		my @all = sort { @{ $of->{$b} } <=> @{ $of->{$a} } } keys %$of;
		my ($first, $last) = @{ $of->{ $all[0] } }[ 0, -1 ];
		my %common = (part => 'memory', who => $who, unit => 'MB');

		note("  $who $_: @{ $of->{$_} }") foreach @all;
		die 'the scheduler was replaced' if $who eq 'scheduler' && @all > 1;
		row(%common,
			what   => "private memory after the first of $n runs",
			values => [$first],
			note   => "seen $chunk runs of all workers after it came");
		row(%common,
			what   => "private memory over $n runs, largest",
			values => [ max(map { @$_ } values %$of) ],
			note   => @all > 1
			? scalar(@all) . ' came one after the other'
			: undef);
		row(%common,
			what   => 'private memory of the one there longest, at its end',
			values => [$last],
			note   => 'seen ' . @{ $of->{ $all[0] } } . ' times',
			ratio  => ratios([$last], [$first]),
			to     => 'its first',
			ratio_goal => [ '<=', 1.1 ]);
	}

	add_tasks_ahead('taskshed_big', $size{memory_ahead});
	enabled('taskshed_big', 1);
	my $scheduler = largest(
		"backend_type = 'taskshed scheduler' AND datname = 'taskshed_big'");
	row(part   => 'memory',
		what   => "private memory, $size{memory_ahead} tasks ahead",
		who    => 'scheduler',
		values => $scheduler ? [$scheduler] : 'the system does not tell',
		unit   => 'MB',
		goal   => [ '<=', 64 ]);
	return;
}

# Has so many tasks run by workers that may have been there before.
sub run
{
	my ($database, $n) = @_;
	my $ended  = runs_ended();
	my $before = value($database, "SELECT $ended");

	add_many($database, $n, 'noop', 'clock_timestamp()', 'memory');
	await($database, "SELECT $ended - $before >= $n", 3600, 0.2);
	return;
}

sub largest
{
	my ($condition) = @_;

	return max(0, map { private_mb($_) // 0 } pids($condition));
}

1;
