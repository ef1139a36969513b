
# Many tasks that recur, all at the same moment.
#
# Each has to run every second, once for each second: what is counted are the
# different times for which the tasks have run.  Times that were passed over
# because the run before came too late are missing then.  All are due at the full
# second, which is the hardest way to spread them.

package Recurring;

use strict;
use warnings;

use Bench;
use Contestants;
use Server;
use Time::HiRes qw(sleep);

sub measure
{
	my ($n, $seconds) = @size{qw(recurring recurring_s)};
	my $database = database('taskshed');
	my %common   = (
		part => 'recurring',
		what => "$n tasks every second, $seconds s",
		who  => 'taskshed');

	enabled($database, 1);
	my $figures =
	  alternate(taskshed => sub { recur($database, $n, $seconds) });
	row(%common,
		values => field($figures->{taskshed}, 'missed'),
		unit   => 'missed',
		goal   => [ '<=', 0 ]);
	row(%common,
		values => field($figures->{taskshed}, 'share'),
		unit   => "% of $cores cores",
		goal   => [ '<=', 40 ]);
	row(%common,
		values => field($figures->{taskshed}, 'lag'),
		unit   => 'ms lag, the last of each second, worst');
	return;
}

sub recur
{
	my ($database, $n, $seconds) = @_;
	my $from = value($database,
		q{SELECT date_trunc('second', clock_timestamp()) + interval '4 s'});

	sql($database, qq{
		SELECT cardinality(taskshed.add_tasks(jsonb_agg(jsonb_build_object('callback', 'public.noop',
			'kwargs', jsonb_build_object('n', i), 'run_at', '$from', 'every', '1 s', 'group_id', 'recurring'))))
		FROM generate_series(1, $n) AS i}, 'bench');
	await(
		$database,
		"SELECT clock_timestamp() >= timestamptz '$from' - interval '100 ms'",
		60);
	my $cpu = server_cpu();
	sleep $seconds;
	$cpu = server_cpu() - $cpu;

	# (The last second's runs may be going on.)
	sleep 1;
	sql($database, q{SELECT taskshed.remove_all_tasks()}, 'bench');
	my ($runs, $different, $lag) = split /\|/, value(
		$database, qq{
		SELECT count(*), count(DISTINCT (task_id, scheduled_at)),
			extract(epoch FROM max(started_at - scheduled_at)) * 1000
		FROM taskshed.runs WHERE group_id = 'recurring' AND status = 'succeeded'
			AND scheduled_at >= '$from' AND scheduled_at < timestamptz '$from' + interval '1 s' * $seconds}
	);
	die "$runs runs for $different times\n" if $runs != $different;
	return {
		missed => $n * $seconds - $runs,
		share  => 100 * $cpu / $seconds / $cores,
		lag    => $lag
	};
}

1;
