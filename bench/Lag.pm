
# How late a callback starts.
#
# Ahead of time: tasks spread evenly over some seconds, on a server that has
# nothing else to do.  The lag is what clock_timestamp() says as the first thing
# in the callback, less run_at.  Each round is for a new role, so the start of
# its first worker is in it; and since that is one of many there, the same is
# measured of nothing but first runs, each of a role of its own.
#
# For now: a procedure looks at the clock, and commits the task that it has added.
# Its COMMIT does not wait for the disk, which would only blur what is measured,
# and is part of the lag.  Warm means that a worker of the role is there; cold,
# that there is none and it has to be started.
#
# The limit of what is ahead of time is a process that sleeps until then and
# does nothing but look at the clock: what the kernel and the machine take.
#
# In a flow: of 10,000 tasks a second, which a client goes on adding a second
# before they are due, the lag of every run as its record has it; and of tasks
# among them, of the same role and so in the same queue, as their callbacks see it.
#
# Peers look at their process's clock when their function is called; for now
# counts from when their own client has the answer to its COMMIT.  They are at
# their best settings for this: woken by NOTIFY, and pg-boss polling as often as
# it can, every half a second.  graphile-worker polls every two seconds by default
# and can do so more often, at a price, so it is shown twice.

package Lag;

use strict;
use warnings;

use Bench;
use Contestants;
use Server;
use Time::HiRes qw(CLOCK_REALTIME TIMER_ABSTIME clock_nanosleep sleep time);

my %peers = (
	'graphile-worker'                       => ['graphile'],
	'graphile-worker, polling every 100 ms' => [ 'graphile', poll_ms => 100 ],
	'pg-boss'                               => ['pgboss']);

sub measure
{
	my ($n, $seconds) = ($size{lags}, $size{lag_span_s});
	my $database = database('taskshed');

	enabled($database, 1);
	rows(
		'lag, ahead of time',
		[ 0.25, 1 ],
		alternate(
			taskshed => sub { lag_ahead($database, $n, $seconds) },
			'limit: a process that sleeps until then' =>
			  sub { lag_of_sleep($n, $seconds) },
			peers(1, $n, $seconds)));
	rows(
		"lag, first run of a role",
		[ undef, 1 ],
		alternate(taskshed => sub { lag_first($database, $size{first}) }));
	rows(
		'lag, for now',
		[ 0.3, undef ],
		alternate(
			taskshed => sub {
				lag_now($database, 1, 0.1);
				return lag_now($database, $n, $seconds / 2);
			},
			peers(0, $n, $seconds / 2)));
	rows(
		'lag, for now, cold worker',
		[ 10, undef ],
		alternate(
			taskshed =>
			  sub { lag_now($database, $size{cold}, $size{cold} / 10, 1) }));
	in_flow($database, $n, $seconds);
	return;
}

sub peers
{
	my ($ahead, $n, $seconds) = @_;

	return map {
		my ($name, @settings) = @{ $peers{$_} };
		$_ => sub {
			my $result = peer(
				$name, 'lag',
				n      => $n,
				span_s => $seconds,
				ahead  => $ahead,
				best   => 1,
				@settings);
			die "$name has lost some\n" if @{ $result->{lags} } != $n;
			return $result->{lags};
		}
	} grep { $ahead || !/polling/ } sort keys %peers;
}

sub lag_of_sleep
{
	my ($n, $seconds) = @_;
	my $start = time() + 0.5;

	return [
		map {
			my $due = $start + $_ * $seconds / $n;
			clock_nanosleep(CLOCK_REALTIME, $due * 1e9, TIMER_ABSTIME);
			1000 * (time() - $due);
		} 0 .. $n - 1
	];
}

sub in_flow
{
	my ($database, $n, $seconds) = @_;
	my $figures =
	  alternate(taskshed => sub { lag_in_flow($database, $n, $seconds) });

	foreach my $of ('every run', 'callbacks among them')
	{
		rows(
			"lag, in a flow of $size{flow} tasks/s, $of",
			[ undef, 10 ],
			{ taskshed => field($figures->{taskshed}, $of) });
	}
	return;
}

sub lag_in_flow
{
	my ($database, $n, $seconds) = @_;
	my $producer = session($database, 'bench', 'flow');
	my $from     = value($database,
		q{SELECT date_trunc('second', clock_timestamp()) + interval '3 s'});
	my $flow = $size{flow} * ($seconds + 4);

	# (The others begin a second after they are added.)
	$producer->start("CALL add_flow($flow, $size{flow}, '$from')");
	await($database, "SELECT clock_timestamp() >= '$from'", 60);
	my $lags = lag_ahead($database, $n, $seconds, 'bench');
	$producer->finish;
	my ($first, $last) = split /\|/,
	  value($database, 'SELECT min(planned), max(planned) FROM ledger');
	await(
		$database,
		q{SELECT NOT EXISTS (SELECT FROM _taskshed.task WHERE group_id = 'flow')},
		60,
		0.5);

	# Did it flow all that time, of what was added in time?
	my ($flown, $asked) = split /\|/, value(
		$database, qq{
		SELECT count(*), extract(epoch FROM timestamptz '$last' - '$first') * $size{flow}
		FROM taskshed.runs WHERE group_id = 'flow'
			AND scheduled_at BETWEEN '$first' AND '$last' AND status = 'succeeded'});
	die "of $asked tasks of the flow $flown have run\n"
	  if $flown < 0.99 * $asked;
	return {
		'callbacks among them' => $lags,
		'every run'            => [
			sql($database, qq{
				SELECT extract(epoch FROM started_at - scheduled_at) * 1000
				FROM taskshed.runs WHERE group_id = 'flow'
					AND scheduled_at BETWEEN '$first' AND '$last'})
		]
	};
}

sub rows
{
	my ($what, $goals, $figures) = @_;

	foreach my $p (50, 99, 100)
	{
		my %of = map {
			my $lags = $figures->{$_};
			$_ => ref $lags
			  ? [ map { percentile($p / 100, @$_) } @$lags ]
			  : $lags
		} keys %$figures;
		my $goal = $p == 50 ? $goals->[0] : $p == 99 ? $goals->[1] : undef;

		foreach my $who (
			sort { $a eq 'taskshed' ? -1 : $b eq 'taskshed' ? 1 : $a cmp $b }
			keys %of)
		{
			my $own = $who eq 'taskshed';

			next if $p == 100 && !$own;
			row(part   => 'lag',
				what   => "$what, " . ($p == 100 ? 'max' : "p$p"),
				who    => $who,
				values => $of{$who},
				unit   => 'ms',
				chart  => $p == 50
				  && $what !~ /cold|flow/ ? "$what, p50" : undef,
				goal  => $own && defined $goal ? [ '<=', $goal ] : undef,
				ratio => $own ? undef : ratios($of{$who}, $of{taskshed}),
				to    => 'taskshed');
		}
	}
	return;
}

1;
