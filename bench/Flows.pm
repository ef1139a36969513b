
# Tasks that run after others.
#
# The lag of a task that is due in its parent's commit is counted from when the
# parent's callback has ended, as its record says: what the outcome writes, and its
# commit, are part of it.  The pairs are added ahead of time and are a moment apart;
# a worker of the role is there.  Beside it is the lag of a task for now of the same
# round, which Lag.pm describes.
#
# Many parents of one child (fan-in): all are due long before the first may start.
# They end in the order of their ids, in the opposite one, or from both ends inward,
# since that is what decides how long one has to look for a parent that is still
# open.  One parent of many children (fan-out): the time in which they are all made
# due, from the end of the parent's callback to the start of the first, and then
# their drain.  Both with and without an old snapshot, as in Snapshot.pm, and beside
# a drain of as many that have nothing to do with each other.
#
# A chain: each task after the one before, all added in one call.
#
# Adding: members of a batch and its last task in one call of add_tasks, beside the
# same call without the last task.
#
# No peer has this inside of PostgreSQL.

package Flows;

use strict;
use warnings;
use utf8;

use Bench;
use Contestants;
use Server;
use Snapshot;
use Time::HiRes qw(time);

my $serial = 0;

# Where a parent comes in the order of ends, by its number i of n, from 1 on.
my %orders = (
	'in the order of their ids' => 'i',
	'in the opposite order'     => 'n - i',
	'from both ends inward'     =>
	  'CASE WHEN 2 * i <= n THEN 2 * i ELSE 2 * (n - i) + 1 END');

sub measure
{
	my $database = database('taskshed');

	lags($database);
	fan_in($database);
	fan_out($database);
	chain($database);
	adding($database);
	return;
}


# Lag

sub lags
{
	my ($database) = @_;
	my $n = $size{lags};

	enabled($database, 1);
	my $figures = alternate(
		child => sub { lag_of_child($database, $n, $size{lag_span_s} / 2) },
		now   => sub {
			lag_now($database, 1, 0.1);
			return lag_now($database, $n, $size{lag_span_s} / 2);
		});

	foreach my $p (50, 99)
	{
		my ($child, $now) = map {
			my $lags = $figures->{$_};
			ref $lags ? [ map { percentile($p / 100, @$_) } @$lags ] : $lags
		} qw(child now);
		my %common =
		  (part => 'flows', what => "lag, a follower, p$p", unit => 'ms');

		row(%common,
			who    => 'taskshed, from the end of the last parent',
			values => $child,
			ratio  => ratios($child, $now),
			to     => 'a task for now',
			goal   => $p == 50 ? [ '<=', 0.35 ] : undef);
		row(%common,
			who    => 'taskshed, a task for now, from its COMMIT',
			values => $now);
	}
	return;
}

sub lag_of_child
{
	my ($database, $n, $seconds) = @_;
	my $id = 'f' . ++$serial;

	lag_now($database, 1, 0.1);
	sql($database, 'TRUNCATE ledger');
	sql($database, qq{
		SELECT cardinality(taskshed.add_tasks(jsonb_agg(jsonb_build_object('callback', 'public.noop',
			'task_id', '$id-p' || i, 'kwargs', jsonb_build_object('n', i),
			'run_at', now() + interval '1 s' + i * interval '1 s' * $seconds / $n)) ||
			jsonb_agg(jsonb_build_object('callback', 'public.late',
			'kwargs', jsonb_build_object('n', i, 'planned', null),
			'task_id', '$id-c' || i, 'after', ARRAY['$id-p' || i]))))
		FROM generate_series(0, $n - 1) AS i});
	await(
		$database,
		"SELECT count(*) >= $n FROM ledger WHERE started IS NOT NULL",
		$seconds + 60, 0.5);
	check_effects($database, $n);
	return [
		sql($database, qq{
			SELECT extract(epoch FROM l.started - r.finished_at) * 1000
			FROM ledger l JOIN taskshed.runs r ON r.task_id = '$id-p' || l.n})
	];
}


# Many parents, many children

# Adds what SQL makes an array of, with taskshed switched off, and has it run:
# returns what drain() does of the runs of a group, and wait, in ms, from the end of
# the run of another task to the start of the first of these.
sub flow
{
	my ($database, $n, $others, $group, $batch, $first_one) = @_;
	my $ended = runs_ended();
	my $all   = $n + $others;

	enabled($database, 0);
	no_workers();
	sql($database,
		"SELECT cardinality(taskshed.add_tasks(batch)) FROM ($batch) AS b",
		'bench');
	settle($database);

	my $before = value($database, "SELECT $ended");
	enabled($database, 1);
	await($database, "SELECT $ended - $before >= $all", 3600);
	my ($runs, $begin, $tenth, $nine, $end) = split /\|/, value(
		$database, qq{
		SELECT count(*), extract(epoch FROM min(started_at)),
			extract(epoch FROM percentile_disc(0.1) WITHIN GROUP (ORDER BY finished_at)),
			extract(epoch FROM percentile_disc(0.9) WITHIN GROUP (ORDER BY finished_at)),
			extract(epoch FROM max(finished_at))
		FROM taskshed.runs WHERE group_id = '$group' AND status = 'succeeded'});
	die "$runs runs of $n tasks\n" if $runs != $n;
	die "some are left\n"
	  if value($database,
		"SELECT EXISTS (SELECT FROM taskshed.tasks WHERE group_id LIKE '$group%')"
	  ) eq 't';
	my $made =
	  defined $first_one
	  ? $begin - value($database,
		"SELECT extract(epoch FROM finished_at) FROM taskshed.runs WHERE task_id = '$first_one'"
	  )
	  : 0;
	return {
		rate  => $n / ($end - $begin),
		first => $n / 10 / ($tenth - $begin),
		last  => $n / 10 / ($end - $nine),
		wait  => $made * 1000
	};
}

# SQL for an array of n tasks of a group, whose callback does nothing.
sub tasks
{
	my ($n, $group, $more) = @_;

	return qq{SELECT jsonb_agg(jsonb_build_object('callback', 'public.noop',
		'group_id', '$group', 'kwargs', jsonb_build_object('n', i)) || $more)
		FROM (SELECT i, $n AS n FROM generate_series(1, $n) AS i) AS s};
}

sub parents
{
	my ($database, $n, $order, $last) = @_;
	my $group = 'f' . ++$serial;
	my $batch = tasks($n, $group,
		"jsonb_build_object('run_at', now() - interval '1 hour' + interval '1 us' * ($orders{$order}))"
	);

	return flow(
		$database,
		$n,
		$last ? 1 : 0,
		$group,
		"SELECT ($batch)" . (
			$last
			? qq{ || jsonb_build_object('callback', 'public.noop', 'task_id', '$group-last',
			'kwargs', jsonb_build_object('n', 0), 'after_group', '$group')}
			: '')
		  . ' AS batch');
}

sub children
{
	my ($database, $n, $parent) = @_;
	my $group = 'f' . ++$serial;
	my $batch =
	  tasks($n, $group, "jsonb_build_object('after', ARRAY['$group-first'])");

	return flow(
		$database, $n, 1, $group,
		qq{SELECT jsonb_build_object('callback', 'public.noop', 'task_id', '$group-first',
			'kwargs', jsonb_build_object('n', 0)) || ($batch) AS batch},
		"$group-first");
}

# The rows of a drain, without and with an old snapshot.
sub drained
{
	my ($what, $figures, $plain) = @_;
	my %common = (part => 'flows', what => $what, unit => 'tasks/s');

	foreach my $held ('without', 'with')
	{
		my $who =
		  'taskshed' . ($held eq 'with' ? ', an old snapshot held' : '');
		my $of = $figures->{$held};
		my ($first, $last) = (field($of, 'first'), field($of, 'last'));

		row(%common,
			who    => $who,
			values => field($of, 'rate'),
			ratio  => ratios(field($of, 'rate'), field($plain, 'rate')),
			to     => 'the same without followers');
		row(%common,
			who        => "$who, last tenth",
			values     => $last,
			ratio      => ratios($last, $first),
			to         => 'the first tenth',
			ratio_goal => [ '>=', 0.8 ]);
	}
	return;
}

sub fan_in
{
	my ($database) = @_;
	my $n          = $size{fan};
	my $ids        = 'in the order of their ids';
	my $figures    = alternate(
		plain => sub { parents($database, $n, $ids, 0) },
		map {
			my $order = $_;
			(   "$order, without" =>
				  sub { parents($database, $n, $order, 1) },
				"$order, with" => sub {
					Snapshot::held($database,
						sub { parents($database, $n, $order, 1) });
				})
		} sort keys %orders);

	row(part   => 'flows',
		what   => "$n tasks without followers",
		who    => 'taskshed',
		unit   => 'tasks/s',
		values => field($figures->{plain}, 'rate'));
	foreach my $order (sort keys %orders)
	{
		drained(
			"$n parents of one, $order",
			{ map { $_ => $figures->{"$order, $_"} } qw(without with) },
			$figures->{plain});
	}
	return;
}

sub fan_out
{
	my ($database) = @_;
	my $n          = $size{fan};
	my $figures    = alternate(
		plain =>
		  sub { parents($database, $n, 'in the order of their ids', 0) },
		without => sub { children($database, $n) },
		with    => sub {
			Snapshot::held($database, sub { children($database, $n) });
		});

	foreach my $held ('without', 'with')
	{
		my $wait = field($figures->{$held}, 'wait');

		row(part => 'flows',
			what => "one parent of $n, from its end to the first's start",
			who  => 'taskshed'
			  . ($held eq 'with' ? ', an old snapshot held' : ''),
			unit   => 'µs each',
			values => ref $wait ? [ map { $_ * 1000 / $n } @$wait ] : $wait);
	}
	drained("one parent of $n, their drain", $figures, $figures->{plain});
	return;
}

sub chain
{
	my ($database) = @_;
	my $n          = $size{chain};
	my $figures    = alternate(
		taskshed => sub {
			my $group = 'f' . ++$serial;

			return flow(
				$database,
				$n, 0, $group,
				'SELECT (' . tasks(
					$n, $group,
					qq{jsonb_strip_nulls(jsonb_build_object('task_id', '$group-' || i,
						'after', CASE WHEN i > 1 THEN ARRAY['$group-' || i - 1] END))}
				  )
				  . ') AS batch');
		});

	row(part   => 'flows',
		what   => "a chain of $n",
		who    => 'taskshed',
		unit   => 'tasks/s',
		values => field($figures->{taskshed}, 'rate'),
		goal   => [ '>=', 2000 ]);
	row(part   => 'flows',
		what   => "a chain of $n",
		who    => 'taskshed, last tenth',
		unit   => 'tasks/s',
		values => field($figures->{taskshed}, 'last'),
		ratio  => ratios(
			field($figures->{taskshed}, 'last'),
			field($figures->{taskshed}, 'first')),
		to => 'the first tenth');
	return;
}


# Adding

sub adding
{
	my ($database) = @_;
	my $n          = $size{fan};
	my $members    = tasks($n, 'flows',
		q{jsonb_build_object('run_at', now() + interval '1 day')});

	sql($database, qq{
		CREATE TABLE flows_batch AS SELECT ($members) AS batch;
		GRANT SELECT ON flows_batch TO bench});
	my $timed = sub {
		my ($more) = @_;

		sql($database, 'SELECT taskshed.remove_all_tasks()', 'bench');
		settle($database);
		my $start = time();
		sql($database,
			"SELECT cardinality(taskshed.add_tasks(batch$more)) FROM flows_batch",
			'bench');
		return $n / (time() - $start);
	};
	my $figures = alternate(
		without => sub { $timed->('') },
		with    => sub {
			$timed->(
				q{ || jsonb_build_object('callback', 'public.noop', 'kwargs', '{"n": 0}'::jsonb,
				'after_group', 'flows')});
		});
	my %common = (
		part => 'flows',
		what => "add_tasks of $n",
		unit => 'tasks/s');

	row(%common,
		who    => 'taskshed, and a last task that runs after them',
		values => $figures->{with},
		ratio  => ratios($figures->{with}, $figures->{without}),
		to     => 'without that');
	row(%common,
		who    => 'taskshed, without that',
		values => $figures->{without});
	sql($database, 'SELECT taskshed.remove_all_tasks()', 'bench');
	sql($database, 'DROP TABLE flows_batch');
	return;
}

1;
