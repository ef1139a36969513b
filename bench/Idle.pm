
# What it costs to have nothing to do.
#
# A database with many tasks that are all due much later, and no worker: the
# context switches, voluntary or not, and the CPU ticks (of 10 ms) of the
# scheduler and of the launcher.  A process that sleeps has none; each wakeup is
# at least one.  The peers' are counted in the very same time, with fewer tasks:
# their own process, all its threads, and their sessions in the server.  They are
# at their default settings, of which polling every two seconds is one.  What
# happens but once a minute is seen, since each round takes a minute, and the goal
# is for every round.

package Idle;

use strict;
use warnings;

use Bench;
use Contestants;
use Load;
use Server;
use Time::HiRes qw(sleep);

sub measure
{
	my %peer = map {
		my $peer =
		  eval { start_peer($_, 'idle', n => $size{peers_ahead}) };
		note("  $_: $@") if !$peer;
		$_ => $peer || "$@";
	} ('graphile', 'pgboss');

	add_tasks_ahead('taskshed_big', $size{ahead});
	enabled('taskshed_big', 1);
	no_workers();
	database('cron') if $have{pg_cron};
	$_->go foreach grep { ref } values %peer;
	sleep 12;    # until the peers' pools have closed what they do not need

	my %what = (
		taskshed =>
		  "backend_type LIKE 'taskshed%' AND coalesce(datname, 'taskshed_big') = 'taskshed_big'",
		pg_cron           => "backend_type LIKE 'pg_cron%'",
		'graphile-worker' => "datname = 'graphile'",
		'pg-boss'         => "datname = 'pgboss'");
	my %process =
	  ('graphile-worker' => $peer{graphile}, 'pg-boss' => $peer{pgboss});
	my (%switches, %ticks);
	my $processes = sub {
		my ($who) = @_;

		return pids($what{$who}),
		  ref $process{$who} ? $process{$who}{pid} : ();
	};

	foreach my $round (1 .. $size{rounds})
	{
		note("  round $round");
		my $load   = load_now();
		my %before = map { $_ => activity($processes->($_)) } keys %what;
		sleep $size{idle_s};
		add_round($load);
		foreach my $who (grep { keys %{ $before{$_} } } keys %what)
		{
			my $after = activity($processes->($who));
			my ($ticks, $switches) = (0, 0);

			# (What has ended in between is not counted, what has begun is.)
			foreach my $pid (keys %$after)
			{
				my $before = $before{$who}{$pid} || [ 0, 0 ];

				$ticks    += $after->{$pid}[0] - $before->[0];
				$switches += $after->{$pid}[1] - $before->[1];
			}
			push @{ $ticks{$who} },    $ticks * 60 / $size{idle_s};
			push @{ $switches{$who} }, $switches * 60 / $size{idle_s};
		}
	}
	foreach my $who (
		sort { $a eq 'taskshed' ? -1 : $b eq 'taskshed' ? 1 : $a cmp $b }
		keys %what)
	{
		my $n =
			$who eq 'taskshed' ? $size{ahead}
		  : $who eq 'pg_cron'  ? 0
		  :                      $size{peers_ahead};
		my $why = ref $process{$who} ? 'it has ended' : $process{$who}
		  || 'not installed';
		my %common = (part => 'idle', who => "$who, $n tasks ahead");

		row(%common,
			what   => 'idle, context switches',
			values => $switches{$who} || $why,
			unit   => '/min',
			chart  => 'idle, context switches',
			goal   => $who eq 'taskshed' ? [ '<=', 2, 'all' ] : undef,
			ratio  => $who eq 'taskshed'
			? undef
			: ratios($switches{$who}, $switches{taskshed}),
			to => 'taskshed');
		row(%common,
			what   => 'idle, CPU ticks',
			values => $ticks{$who} || $why,
			unit   => '/min',
			goal   => $who eq 'taskshed' ? [ '<=', 0, 'all' ] : undef);
	}
	$_->go, $_->result foreach grep { ref } values %peer;
	return;
}

1;
