
# Commits and the disk.
#
# With taskshed.synchronous_commit = on each run waits until its commit is on
# disk.  A worker that waits needs no processor, and one flush serves all the
# commits that have come meanwhile, so workers beyond the cores pay: a backlog is
# drained with more and more of them, and with as many runs a commit as 32.
#
# With off, as it is by default, nobody waits, and a crash can take back what has
# been seen already, until it is on disk.  How long that is, is measured after a
# burst of tasks that are all due at once: from the end of each run to the moment
# at which all that the burst has written is flushed, which a session that looks
# every millisecond sees.

package Durable;

use strict;
use warnings;

use Bench;
use Contestants;
use List::Util qw(uniq);
use Server;

sub measure
{
	workers();
	window();
	return;
}

sub workers
{
	my %of;
	my @who;

	foreach my $shared (1, 32)
	{
		foreach my $workers (uniq(1, $cores, 4 * $cores, 8 * $cores))
		{
			my $who = sprintf 'taskshed, %d worker%s%s', $workers,
			  $workers > 1 ? 's'                  : '',
			  $shared > 1  ? ", $shared a commit" : '';

			push @who, $who;
			$of{$who} = with_settings(
				{
					'taskshed.synchronous_commit' => 'on',
					'taskshed.max_workers'        => $workers,
					'taskshed.tasks_per_commit'   => $shared
				},
				sub { drain(database('taskshed'), $size{durable}, 'effect') }
			);
		}
	}
	my $figures = alternate(map { $_ => $of{$_} } @who);
	my $usual   = field($figures->{"taskshed, $cores workers"}, 'rate');

	foreach my $who (@who)
	{
		my $rate = field($figures->{$who}, 'rate');

		row(part   => 'durable',
			what   => 'drain, callback inserts a row, commits wait',
			who    => $who,
			values => $rate,
			unit   => 'tasks/s',
			chart  => 'drain, callback inserts a row, commits wait',
			ratio  => ratios($rate, $usual),
			to     => "$cores workers");
	}
	return;
}

sub window
{
	my $database = database('taskshed');
	my $burst    = sub { bursts($database, @size{qw(bursts burst)}) };
	my $shared   = 'taskshed, 32 a commit';

	enabled($database, 1);
	my $figures = alternate(
		taskshed => $burst,
		$shared  =>
		  with_settings({ 'taskshed.tasks_per_commit' => 32 }, $burst));

	foreach my $p (50, 99, 100)
	{
		foreach my $who ('taskshed', $shared)
		{
			my $windows = $figures->{$who};

			row(part => 'durable',
				what =>
				  "from the end of a run to the disk, after a burst of $size{burst}, "
				  . ($p == 100 ? 'max' : "p$p"),
				who    => $who,
				values => ref $windows
				? [ map { percentile($p / 100, @$_) } @$windows ]
				: $windows,
				unit => 'ms',
				goal => $p == 99 ? [ '<=', 20 ] : undef);
		}
	}
	return;
}

# The windows of all runs, in milliseconds.
my $serial = 0;

sub bursts
{
	my ($database, $n, $tasks) = @_;
	my $watch = session($database, undef, 'watch');
	my @windows;

	foreach (1 .. $n)
	{
		my $group = 'burst' . ++$serial;

		sql($database, 'TRUNCATE ledger; TRUNCATE wal_seen');
		my $at =
		  value($database, q{SELECT clock_timestamp() + interval '400 ms'});
		add_many($database, $tasks, 'effect', "timestamptz '$at'", $group);
		$watch->start(
			qq{INSERT INTO wal_seen
			SELECT * FROM watch_wal('$at', timestamptz '$at' + interval '200 ms')});
		$watch->finish;

		my @of = sql(
			$database, qq{
			WITH burst AS (
				SELECT finished_at FROM taskshed.runs
				WHERE group_id = '$group' AND status = 'succeeded'),
			written AS (
				SELECT written FROM wal_seen
				WHERE at >= (SELECT max(finished_at) + interval '2 ms' FROM burst)
				ORDER BY at LIMIT 1),
			disk AS (
				SELECT min(at) AS at FROM wal_seen
				WHERE flushed >= (SELECT written FROM written))
			SELECT extract(epoch FROM at - finished_at) * 1000 FROM burst, disk});
		die scalar(@of) . " runs of $tasks were seen to get to the disk\n"
		  if @of != $tasks || grep { $_ eq q{} } @of;
		push @windows, @of;
	}
	return \@windows;
}

1;
