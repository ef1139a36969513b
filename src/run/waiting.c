/*-------------------------------------------------------------------------
 *
 * waiting.c
 *		Tasks that wait for others: whether such a task is due.
 *
 * A task that runs after others, the child, has an edge to each of them, its parents, in
 * which their ends are written (followers.c).  Whether there still is an open one is found
 * out by looking for one from the far end, since tasks that were added together mostly end
 * in that order.  Where such a look has come to is kept in the child's alarm now and then
 * (settled_from), so that it is not repeated: that is a hint, and before the child is due all
 * edges are looked at once.  A count of open edges would be quicker, but it would be changed
 * by every end, and become slow while somebody holds an old snapshot.
 *
 * A lasting child waits again after each run, for the next round.  A round is complete when
 * each parent has ended and none is due again, or running, for a later time.  A parent that
 * is behind the others, and waits itself for something that has reached a later time, is as
 * if it were due: so a night on which one has failed does not lend its half to the next,
 * however long the way from there.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/hsearch.h"
#include "utils/timestamp.h"

#include "run/run.h"

/* A look that has passed so many edges is not repeated. */
#define LOOK_PASSED		100

/*
 * So many tasks, and edges of these, are looked at to find out whether one that waits is to
 * run for a later time.
 */
#define MAX_MET			1000
#define MAX_EDGES_MET	10000

/* What is known of a child when its edges have been looked at. */
typedef enum Verdict
{
	VERDICT_WAITS,
	VERDICT_DUE,
	VERDICT_SKIPPED				/* what it waits for cannot come any more */
} Verdict;

/* Return how a parent has ended, as its edge has it; RUN_NONE if it has not. */
RunStatus
waiting_edge_status(const EdgeRow *edge)
{
	if (ROW_ISNULL(edge, edge_done_at) || ROW_ISNULL(edge, edge_status))
		return RUN_NONE;
	return word_value(run_status_words, ROW_DATUM(edge, edge_status), RUN_NONE);
}

/* Return whether a parent has failed that has ended like this. */
bool
waiting_is_failure(RunStatus status)
{
	return status != RUN_NONE && status != RUN_SUCCEEDED && status != RUN_SKIPPED;
}

/* A parent of a task that waits, as far as its edge tells. */
typedef struct WaitedFor
{
	int64		id;
	TimestampTz run_at;			/* that it has ended for; DT_NOBEGIN if it has
								 * not */
} WaitedFor;

/* Read what a task waits for, as an array of *n. */
static WaitedFor *
waiting_read(Store *store, int64 id, int *n)
{
	int			size = 8;
	WaitedFor  *parents = palloc(size * sizeof(WaitedFor));
	EdgeScan	scan;
	EdgeRow		edge;

	*n = 0;
	edges_begin(store, &scan, id, PG_INT64_MAX, false);
	while (edges_next(&scan, &edge))
	{
		if (*n == size)
		{
			size *= 2;
			parents = repalloc_huge(parents, size * sizeof(WaitedFor));
		}
		parents[*n].id = ROW_GET(Int64, &edge, edge_parent);
		parents[(*n)++].run_at = ROW_ISNULL(&edge, edge_run_at) ? DT_NOBEGIN :
			ROW_GET(TimestampTz, &edge, edge_run_at);
	}
	edges_end(&scan);
	return parents;
}

/*
 * Return whether a task is to run for a later time than one: it is due, or running.  Set
 * waits if it waits for others instead.
 */
static bool
waiting_runs_later(Store *store, int64 id, TimestampTz since, bool *waits)
{
	AlarmRow	alarm;

	*waits = false;
	if (!store_get_alarm(store, id, &alarm) || !ROW_ISNULL(&alarm, alarm_failed_at))
		return false;
	if (!ROW_ISNULL(&alarm, alarm_resume_at))
		return true;			/* a run beside its schedule */
	if (ROW_ISNULL(&alarm, alarm_waiting_since))
		return ROW_GET(TimestampTz, &alarm, alarm_scheduled_at) <= GetCurrentTimestamp() &&
			ROW_GET(TimestampTz, &alarm, alarm_scheduled_at) > since;
	*waits = ROW_IS_TRUE(&alarm, alarm_follows);
	return false;
}

/*
 * Return whether something that a task waits for, or that this waits for, and so on, has
 * ended for a later time than one, or is to run for it.
 */
static bool
waiting_is_reached(Store *store, int64 id, TimestampTz since)
{
	HASHCTL		ctl = {.keysize = sizeof(int64),.entrysize = sizeof(int64),.hcxt = CurrentMemoryContext};
	HTAB	   *met = hash_create("taskshed tasks met", 64, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	int64	   *queue = palloc(MAX_MET * sizeof(int64));
	int			nqueue = 1;
	int			nedges = 0;
	bool		reached = false;

	queue[0] = id;
	for (int i = 0; !reached && i < nqueue && nedges < MAX_EDGES_MET; i++)
	{
		int			n;
		WaitedFor  *parents = waiting_read(store, queue[i], &n);

		CHECK_FOR_INTERRUPTS();
		nedges += n;
		for (int j = 0; !reached && j < n && nqueue < MAX_MET; j++)
		{
			bool		waits;
			bool		found;

			reached = parents[j].run_at > since ||
				waiting_runs_later(store, parents[j].id, since, &waits);
			if (reached || !waits)
				continue;
			hash_search(met, &parents[j].id, HASH_ENTER, &found);
			if (!found)
				queue[nqueue++] = parents[j].id;
		}
		pfree(parents);
	}
	hash_destroy(met);
	pfree(queue);
	return reached;
}

/*
 * Return whether a parent of a lasting child, all of which have ended, is to run for a later
 * time.  One that has ended for an earlier time than the others is so, too, if it waits for
 * something that has reached a later one: it will follow.
 */
static bool
waiting_is_ahead(Store *store, const WaitingTask *child)
{
	int			n;
	WaitedFor  *parents = waiting_read(store, child->id, &n);
	bool		ahead = false;

	for (int i = 0; !ahead && i < n; i++)
	{
		bool		waits;

		CHECK_FOR_INTERRUPTS();
		ahead = waiting_runs_later(store, parents[i].id, parents[i].run_at, &waits) ||
			(waits && parents[i].run_at < child->latest &&
			 waiting_is_reached(store, parents[i].id, parents[i].run_at));
	}
	pfree(parents);
	return ahead;
}

/*
 * Return the latest time of the runs of a child's parents in this round, and another one if
 * there is none later.
 */
TimestampTz
waiting_latest(Store *store, int64 id, TimestampTz latest)
{
	EdgeScan	scan;
	EdgeRow		edge;

	edges_begin(store, &scan, id, PG_INT64_MAX, false);
	while (edges_next(&scan, &edge))
	{
		if (!ROW_ISNULL(&edge, edge_done_at) && !ROW_ISNULL(&edge, edge_run_at))
			latest = Max(latest, ROW_GET(TimestampTz, &edge, edge_run_at));
	}
	edges_end(&scan);
	return latest;
}

/* Return what one edge is to a child. */
static Verdict
waiting_look_at(WaitingTask *child, const EdgeRow *edge)
{
	RunStatus	status = waiting_edge_status(edge);

	if (status == RUN_NONE)
		return VERDICT_WAITS;
	if (!ROW_ISNULL(edge, edge_run_at))
		child->latest = Max(child->latest, ROW_GET(TimestampTz, edge, edge_run_at));
	if (child->after == AFTER_SUCCEEDED && status != RUN_SUCCEEDED)
		return ROW_IS_TRUE(edge, edge_gone) ? VERDICT_SKIPPED : VERDICT_WAITS;
	return VERDICT_DUE;
}

/*
 * Look at the edges of a child, from that to a parent of a certain id on, until one says
 * that it waits; or at all of them, since another may say that it is due nevertheless, or
 * waits in vain.
 */
static Verdict
waiting_look(Store *store, WaitingTask *child, int64 from, bool all)
{
	Verdict		verdict = VERDICT_DUE;
	bool		failed = false;
	int			passed = 0;
	EdgeScan	scan;
	EdgeRow		edge;

	child->latest = DT_NOBEGIN;
	edges_begin(store, &scan, child->id, from, false);
	while ((verdict == VERDICT_DUE || (all && verdict == VERDICT_WAITS)) && edges_next(&scan, &edge))
	{
		Verdict		one = waiting_look_at(child, &edge);

		CHECK_FOR_INTERRUPTS();
		failed = failed || waiting_is_failure(waiting_edge_status(&edge));
		if (one == VERDICT_WAITS && verdict == VERDICT_DUE && passed >= LOOK_PASSED)
			ROW_SET(Int64, child->alarm, alarm_settled_from, ROW_GET(Int64, &edge, edge_parent));
		if (one != VERDICT_DUE)
			verdict = one;
		passed++;
	}
	edges_end(&scan);
	if (child->after == AFTER_FAILED && verdict != VERDICT_SKIPPED)
	{
		if (failed)
			return VERDICT_DUE;
		if (verdict == VERDICT_DUE)
			return VERDICT_SKIPPED;
	}
	return verdict;
}

/*
 * Return what is known of a child that waits, by its edges.  Set changed if its alarm is
 * to be written.  If all, more may be new than the end of one that it runs after.
 */
static Verdict
waiting_judge(Store *store, WaitingTask *child, bool all, bool *changed)
{
	Verdict		verdict = VERDICT_DUE;
	bool		had_hint = !ROW_ISNULL(child->alarm, alarm_settled_from);

	if (had_hint && !all)
	{
		int64		from = ROW_GET(Int64, child->alarm, alarm_settled_from);

		verdict = waiting_look(store, child, from, false);
		*changed = (ROW_GET(Int64, child->alarm, alarm_settled_from) != from);
		if (verdict == VERDICT_WAITS)
			return verdict;
	}

	/* others may have been added, or have ended once more */
	ROW_SET_NULL(child->alarm, alarm_settled_from);
	verdict = waiting_look(store, child, PG_INT64_MAX, all);
	if (child->lasting && verdict != VERDICT_WAITS &&
		(verdict == VERDICT_DUE) != (child->after == AFTER_FAILED) &&
		waiting_is_ahead(store, child))
		verdict = VERDICT_WAITS;
	*changed = (had_hint || !ROW_ISNULL(child->alarm, alarm_settled_from));
	return verdict;
}

/* Begin to consider a child, whose alarm is locked. */
WaitingTask
waiting_task(AlarmRow *alarm, const TaskRow *task)
{
	WaitingTask child = {.alarm = alarm,.id = ROW_GET(Int64, alarm, alarm_id)};

	child.lasting = task_is_lasting(task);
	child.after = ROW_ISNULL(task, task_after_status) ? AFTER_SUCCEEDED :
		word_value(after_status_words, ROW_DATUM(task, task_after_status), AFTER_SUCCEEDED);
	child.latest = DT_NOBEGIN;
	return child;
}

/*
 * Have a child be due: now, or when its own time comes.  The run of a lasting one is for
 * the latest time of its parents' runs.  The caller writes the alarm.
 */
static void
waiting_make_due(const WaitingTask *child)
{
	AlarmRow   *alarm = child->alarm;
	TimestampTz now = GetCurrentTimestamp();
	bool		by_hand = !ROW_ISNULL(alarm, alarm_resume_at);
	TimestampTz run_at = Max(now, ROW_GET(TimestampTz, alarm, alarm_run_at));

	if (by_hand)
	{
		/* after the run that somebody has asked for beside it */
		run_at = Max(now, ROW_GET(TimestampTz, alarm, alarm_resume_at));
		ROW_SET(TimestampTz, alarm, alarm_resume_at, run_at);
	}
	else
	{
		ROW_SET(TimestampTz, alarm, alarm_run_at, run_at);
		alarm_count_anew(alarm);
	}
	ROW_SET(TimestampTz, alarm, alarm_scheduled_at, run_at);
	if (child->lasting && child->latest != DT_NOBEGIN && run_at == now)
	{
		ROW_SET(TimestampTz, alarm, alarm_scheduled_at, child->latest);
		ROW_SET(TimestampTz, alarm, alarm_late_from, now);
	}
	ROW_SET_NULL(alarm, alarm_waiting_since);
	ROW_SET_NULL(alarm, alarm_settled_from);
}

/* Have a child be due, write that, and tell the scheduler. */
void
waiting_write_due(Store *store, const WaitingTask *child)
{
	waiting_make_due(child);
	store_update_alarm(store, child->alarm);
	if (alarm_is_queued(child->alarm))
		notes_add(ROW_GET(TimestampTz, child->alarm, alarm_run_at), child->id,
				  ROW_GET(ObjectId, child->alarm, alarm_owner));
}

/*
 * Have a lasting task that waits for nothing but to be asked for be due.  The caller writes
 * the alarm.
 */
void
waiting_begin(AlarmRow *alarm, const TaskRow *task)
{
	WaitingTask child = waiting_task(alarm, task);

	waiting_make_due(&child);
}

/*
 * Consider a child that waits, whose alarm is locked: write it if it is due.  Return
 * whether it is to be skipped.  If all, more may be new than the end of one that it
 * runs after.
 */
bool
waiting_consider(Store *store, AlarmRow *alarm, const TaskRow *task, bool all)
{
	WaitingTask child = waiting_task(alarm, task);
	bool		changed = false;
	Verdict		verdict = waiting_judge(store, &child, all, &changed);

	/* what is skipped is so for the time that it would have run for */
	if (verdict == VERDICT_SKIPPED && child.lasting && child.latest != DT_NOBEGIN)
	{
		ROW_SET(TimestampTz, alarm, alarm_scheduled_at, child.latest);
		changed = true;
	}
	if (verdict == VERDICT_DUE)
		waiting_write_due(store, &child);
	else if (changed)
		store_update_alarm(store, alarm);
	return verdict == VERDICT_SKIPPED;
}
