
# Whether memory grows.
#
# What a process has for itself (Private_* of smaps_rollup, so without the
# server's shared memory), of the largest worker and of the scheduler: after the
# first tenth of many runs, when all caches are filled, and at the end.  The same
# workers go on throughout, as far as they do not retire.  Last, the scheduler of a database with many tasks that are due much later.

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
	my %samples  = (worker => [], scheduler => []);

	enabled($database, 1);
	for (my $done = 0; $done < $n; $done += $chunk)
	{
		note("  $done of $n runs");
		run($database, $chunk);
		foreach my $who (keys %samples)
		{
			push @{ $samples{$who} },
			  largest(
				"backend_type = 'taskshed $who' AND datname = '$database'");
		}
	}
	foreach my $who (sort keys %samples)
	{
		my ($first, $last) = @{ $samples{$who} }[ 0, -1 ];
		my %common = (part => 'memory', who => $who, unit => 'MB');

		note("  $who: @{ $samples{$who} }");
		if (!$first)
		{
			missing(
				'memory', "private memory, $n runs",
				$who,     'the system does not tell');
			next;
		}
		row(%common,
			what   => "private memory after $chunk runs",
			values => [$first]);
		row(%common,
			what   => "private memory over $n runs, largest",
			values => [ max(@{ $samples{$who} }) ]);
		row(%common,
			what       => "private memory after $n runs",
			values     => [$last],
			ratio      => ratios([$last], [$first]),
			to         => "after $chunk",
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
