/*-------------------------------------------------------------------------
 *
 * followers.c
 *		Tasks that run after others, and what the end of one is to them.
 *
 * A task that runs after others, the child, waits: it is not in the queue.  The end of
 * each of the others, its parents, is written into the edge between the two, under the
 * lock of the child's alarm; and if it was the last that the child has waited for, the
 * child is due in the same transaction.  Of two parents that end together the second has
 * the lock after the first, and sees its edge.  So there is nothing to resolve, to poll for
 * or to make good after a crash.
 *
 * Whether there still is an open edge is found out by looking for one from the far end,
 * since tasks that were added together mostly end in that order.  Where such a look has come
 * to is kept in the child's alarm now and then (settled_from), so that it is not repeated:
 * that is a hint, and before the child is due all edges are looked at once.  A count of
 * open edges would be quicker, but it would be changed by every end, and become slow while
 * somebody holds an old snapshot.
 *
 * A lasting child waits again after each run.  What its parents do from when it is due to
 * the end of its run belongs to the next round, and has columns of its own in the edges.
 * A round is complete when each parent has ended and none is due again, or running, for a
 * later time: a night on which one has failed does not lend its half to the next.
 *
 * A child can end here, too: if what it waits for cannot come any more.  That is told to
 * ending.c, which ends it.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "run/run.h"

/* A look that has passed so many edges is not repeated. */
#define LOOK_PASSED		100

/* Longest result (bytes) that is kept for the tasks that run after another. */
#define MAX_RESULT		(1024 * 1024)

/* How many columns of an edge there are for an end, in edge_columns.h. */
#define END_COLUMNS		(Anum_edge_next_done_at - Anum_edge_done_at)

/* What is known of a child when its edges have been looked at. */
typedef enum Verdict
{
	VERDICT_WAITS,
	VERDICT_DUE,
	VERDICT_SKIPPED				/* what it waits for cannot come any more */
} Verdict;

/* A child that is considered. */
typedef struct Child
{
	AlarmRow   *alarm;			/* locked */
	int64		id;
	bool		lasting;
	AfterStatus after;
	TimestampTz latest;			/* the latest time of its parents' runs */
} Child;

static int
follower_name_cmp(const void *a, const void *b)
{
	return strcmp(((const FollowerName *) a)->task_id, ((const FollowerName *) b)->task_id);
}

/* Find the tasks that run after one, in the order of their task_ids. */
FollowerNames *
followers_find(Store *store, int64 parent)
{
	FollowerNames *names = palloc0(sizeof(FollowerNames));
	int			n;
	int64	   *children = edges_children(store, parent, &n);

	names->names = MemoryContextAllocHuge(CurrentMemoryContext, (n + 1) * sizeof(FollowerName));
	for (int i = 0; i < n; i++)
	{
		TaskRow		task;

		if (!store_get_task(store, children[i], &task))
			continue;
		names->names[names->n].id = children[i];
		names->names[names->n++].task_id = TextDatumGetCString(ROW_DATUM(&task, task_task_id));
	}
	qsort(names->names, names->n, sizeof(FollowerName), follower_name_cmp);
	return names;
}

/*
 * Lock the alarms of those whose turn comes before a name, or of all that are left if that
 * is NULL.  Those that are gone by now are left out.
 */
void
followers_lock(Store *store, FollowerNames *names, const char *before)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "taskshed followers",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);

	while (names->locked < names->n &&
		   (before == NULL || strcmp(names->names[names->locked].task_id, before) < 0))
	{
		AlarmRow	alarm;

		(void) alarm_lock(store, names->names[names->locked++].id, NULL, &alarm, false);
		MemoryContextReset(context);
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
}

/*
 * Lock what the end of a task will need without waiting for anybody: the alarms of those
 * that run after it, and with two levels of those after these.  Its own is locked.  Return
 * false if somebody else has one of them.
 */
bool
followers_try_lock(Store *store, const AlarmRow *alarm, int levels)
{
	int64	   *children;
	int			n;
	bool		locked = true;

	if (!ROW_IS_TRUE(alarm, alarm_followed))
		return true;
	children = edges_children(store, ROW_GET(Int64, alarm, alarm_id), &n);
	for (int i = 0; locked && i < n; i++)
	{
		AlarmRow	child;
		TM_Result	result = store_lock_alarm(store, children[i], &child, LockWaitSkip);

		locked = (result != TM_WouldBlock &&
				  (result != TM_Ok || levels <= 1 || followers_try_lock(store, &child, levels - 1)));
	}
	return locked;
}

/* Return how a parent has ended, as its edge has it; RUN_NONE if it has not. */
static RunStatus
followers_edge_status(const EdgeRow *edge)
{
	if (ROW_ISNULL(edge, edge_done_at) || ROW_ISNULL(edge, edge_status))
		return RUN_NONE;
	return word_value(run_status_words, ROW_DATUM(edge, edge_status), RUN_NONE);
}

/* Return whether a parent has failed that has ended like this. */
static bool
followers_is_failure(RunStatus status)
{
	return status != RUN_NONE && status != RUN_SUCCEEDED && status != RUN_SKIPPED;
}

/*
 * Return whether a parent that has ended is due again, or running, for a later time.
 */
static bool
followers_parent_is_busy(Store *store, const EdgeRow *edge)
{
	AlarmRow	alarm;
	TimestampTz scheduled_at;

	if (!store_get_alarm(store, ROW_GET(Int64, edge, edge_parent), &alarm) ||
		!ROW_ISNULL(&alarm, alarm_failed_at))
		return false;
	if (!ROW_ISNULL(&alarm, alarm_resume_at))
		return true;			/* a run beside its schedule */
	if (!ROW_ISNULL(&alarm, alarm_waiting_since))
		return false;
	scheduled_at = ROW_GET(TimestampTz, &alarm, alarm_scheduled_at);
	return scheduled_at <= GetCurrentTimestamp() &&
		(ROW_ISNULL(edge, edge_run_at) || scheduled_at > ROW_GET(TimestampTz, edge, edge_run_at));
}

/* Return what one edge is to a child. */
static Verdict
followers_look_at(Store *store, Child *child, const EdgeRow *edge)
{
	RunStatus	status = followers_edge_status(edge);

	if (status == RUN_NONE)
		return VERDICT_WAITS;
	if (child->after == AFTER_SUCCEEDED && status != RUN_SUCCEEDED)
		return ROW_IS_TRUE(edge, edge_gone) ? VERDICT_SKIPPED : VERDICT_WAITS;
	if (child->lasting && followers_parent_is_busy(store, edge))
		return VERDICT_WAITS;
	if (!ROW_ISNULL(edge, edge_run_at))
		child->latest = Max(child->latest, ROW_GET(TimestampTz, edge, edge_run_at));
	return VERDICT_DUE;
}

/*
 * Look at the edges of a child, from that to a parent of a certain id on, until one says
 * that it waits; or at all of them, since another may say that it is due nevertheless, or
 * waits in vain.
 */
static Verdict
followers_look(Store *store, Child *child, int64 from, bool all)
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
		Verdict		one = followers_look_at(store, child, &edge);

		CHECK_FOR_INTERRUPTS();
		failed = failed || followers_is_failure(followers_edge_status(&edge));
		if (one == VERDICT_WAITS && verdict == VERDICT_DUE && passed >= LOOK_PASSED)
			ROW_SET(Int64, child->alarm, alarm_settled_from, ROW_GET(Int64, &edge, edge_parent));
		if (one != VERDICT_DUE)
			verdict = one;
		passed++;
	}
	edges_end(&scan);
	if (child->after == AFTER_FAILED && passed > 0 && verdict != VERDICT_SKIPPED)
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
followers_judge(Store *store, Child *child, bool all, bool *changed)
{
	Verdict		verdict = VERDICT_DUE;
	bool		had_hint = !ROW_ISNULL(child->alarm, alarm_settled_from);

	if (had_hint && !all)
	{
		int64		from = ROW_GET(Int64, child->alarm, alarm_settled_from);

		verdict = followers_look(store, child, from, false);
		*changed = (ROW_GET(Int64, child->alarm, alarm_settled_from) != from);
		if (verdict == VERDICT_WAITS)
			return verdict;
	}

	/* others may have been added, or have ended once more */
	ROW_SET_NULL(child->alarm, alarm_settled_from);
	verdict = followers_look(store, child, PG_INT64_MAX, all);
	*changed = (had_hint || !ROW_ISNULL(child->alarm, alarm_settled_from));
	return verdict;
}

/* Begin to consider a child, whose alarm is locked. */
static Child
followers_child(AlarmRow *alarm, const TaskRow *task)
{
	Child		child = {.alarm = alarm,.id = ROW_GET(Int64, alarm, alarm_id)};

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
followers_make_due(const Child *child)
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
static void
followers_write_due(Store *store, const Child *child)
{
	followers_make_due(child);
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
followers_begin(AlarmRow *alarm, const TaskRow *task)
{
	Child		child = followers_child(alarm, task);

	followers_make_due(&child);
}

/*
 * Consider a child that waits, whose alarm is locked: write it if it is due.  Return
 * whether it is to be skipped.  If all, more may be new than the end of one that it
 * runs after.
 */
bool
followers_consider(Store *store, AlarmRow *alarm, const TaskRow *task, bool all)
{
	Child		child = followers_child(alarm, task);
	bool		changed = false;
	Verdict		verdict = followers_judge(store, &child, all, &changed);

	/* what is skipped is so for the time that it would have run for */
	if (verdict == VERDICT_SKIPPED && child.lasting && child.latest != DT_NOBEGIN)
	{
		ROW_SET(TimestampTz, alarm, alarm_scheduled_at, child.latest);
		changed = true;
	}
	if (verdict == VERDICT_DUE)
		followers_write_due(store, &child);
	else if (changed)
		store_update_alarm(store, alarm);
	return verdict == VERDICT_SKIPPED;
}

/* Put a text into an edge, or null. */
static void
followers_put(EdgeRow *edge, int attnum, const char *string)
{
	edge->nulls[attnum - 1] = (string == NULL);
	edge->values[attnum - 1] = string == NULL ? (Datum) 0 : CStringGetTextDatum(string);
}

/* Write into an edge how the parent has ended: for the round to come, or for this one. */
void
followers_mark(EdgeRow *edge, const ParentEnd *end, bool ahead)
{
	int			offset = ahead ? END_COLUMNS : 0;

	edge->nulls[Anum_edge_done_at + offset - 1] = false;
	edge->values[Anum_edge_done_at + offset - 1] = TimestampTzGetDatum(GetCurrentTimestamp());
	edge->nulls[Anum_edge_run_at + offset - 1] = false;
	edge->values[Anum_edge_run_at + offset - 1] = TimestampTzGetDatum(end->run_at);
	followers_put(edge, Anum_edge_status + offset, word_text(run_status_words, end->status));
	followers_put(edge, Anum_edge_sqlstate + offset, end->sqlstate);
	followers_put(edge, Anum_edge_message + offset,
				  end->message == NULL ? NULL : text_to_cstring(failure_text(end->message)));
	followers_put(edge, Anum_edge_result + offset,
				  end->result == NULL || strlen(end->result) > MAX_RESULT ? NULL : end->result);
}

/*
 * Tell a child, whose alarm is locked, that a parent was removed.  Return whether it is to
 * fail: what it waits for cannot come any more.  It waits no more then, so that nothing
 * else has it be due, or skipped, before the caller has it fail.
 */
static bool
followers_tell_removed(Store *store, const Child *child, EdgeRow *edge)
{
	bool		waits = !ROW_ISNULL(child->alarm, alarm_waiting_since);
	RunStatus	status = followers_edge_status(edge);
	bool		lost;

	if (!child->lasting && !waits)
		return false;
	ROW_SET(Bool, edge, edge_gone, true);
	if (!waits)
	{
		/* it has this run yet, and no other */
		ROW_SET_NULL(edge, edge_next_done_at);
		followers_put(edge, Anum_edge_next_status, "removed");
	}
	edges_update(store, edge);
	if (!waits)
		return false;
	lost = child->lasting || status == RUN_NONE ||
		(child->after == AFTER_SUCCEEDED && status != RUN_SUCCEEDED);
	if (lost)
	{
		ROW_SET_NULL(child->alarm, alarm_waiting_since);
		store_update_alarm(store, child->alarm);
	}
	return lost;
}

/*
 * Tell one child of an end.  Return whether it ends by that; lost is the parent's name then,
 * in the current memory context, if that was removed.
 */
static bool
followers_tell(Store *store, int64 id, const ParentEnd *end, char **lost)
{
	AlarmRow	alarm;
	TaskRow		task;
	EdgeRow		edge;
	Child		child;
	bool		waits;

	if (alarm_lock(store, id, NULL, &alarm, false) != TM_Ok)
	{
		/* it was removed while this one was added before it */
		if (edges_get(store, id, end->id, &edge))
			edges_delete(store, &edge);
		return false;
	}
	if (!store_get_task(store, id, &task) || !edges_get(store, id, end->id, &edge))
		return false;
	child = followers_child(&alarm, &task);
	waits = !ROW_ISNULL(&alarm, alarm_waiting_since);
	*lost = NULL;
	if (end->removed)
	{
		*lost = TextDatumGetCString(ROW_DATUM(&edge, edge_task_id));
		return followers_tell_removed(store, &child, &edge);
	}

	/* one that waits once has what it has waited for, whatever comes then */
	if (!child.lasting && (!waits || followers_edge_status(&edge) == RUN_SUCCEEDED))
		return false;
	if (end->gone)
		ROW_SET(Bool, &edge, edge_gone, true);
	followers_mark(&edge, end, !waits);
	edges_update(store, &edge);
	if (!waits)
		return false;

	/* is that all that it has waited for? */
	if (child.after == AFTER_FAILED && followers_is_failure(end->status))
	{
		child.latest = end->run_at;
		followers_write_due(store, &child);
		return false;
	}
	if (child.after == AFTER_SUCCEEDED && end->gone && end->status != RUN_SUCCEEDED)
		return true;			/* whatever becomes of the others */
	return followers_consider(store, &alarm, &task, false);
}

/*
 * Tell all that run after a task of its end.  Its alarm is locked, or gone.  Those that end
 * by that are added to a list, for the caller to end them.
 */
void
followers_settle(Store *store, const ParentEnd *end, List **endings)
{
	MemoryContext old = CurrentMemoryContext;
	MemoryContext context = AllocSetContextCreate(old, "taskshed followers", ALLOCSET_DEFAULT_SIZES);
	int			n;
	int64	   *children;

	CommandCounterIncrement();
	children = edges_children(store, end->id, &n);
	for (int i = 0; i < n; i++)
	{
		char	   *lost;

		CHECK_FOR_INTERRUPTS();
		MemoryContextSwitchTo(context);
		if (followers_tell(store, children[i], end, &lost))
		{
			FollowerEnd *ending;

			MemoryContextSwitchTo(old);
			ending = palloc(sizeof(FollowerEnd));
			ending->id = children[i];
			ending->lost = lost == NULL ? NULL : pstrdup(lost);
			ending->skipped = (lost == NULL);
			*endings = lappend(*endings, ending);
		}
		CommandCounterIncrement();
		MemoryContextReset(context);
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
	pfree(children);
}

/* Begin the next round of an edge: what has come already for it is what it has. */
static void
followers_turn(Store *store, EdgeRow *edge)
{
	bool		changed = false;

	for (int i = Anum_edge_done_at - 1; i < Anum_edge_done_at - 1 + END_COLUMNS; i++)
	{
		changed = changed || !edge->nulls[i] || !edge->nulls[i + END_COLUMNS];
		edge->values[i] = edge->values[i + END_COLUMNS];
		edge->nulls[i] = edge->nulls[i + END_COLUMNS];
		edge->values[i + END_COLUMNS] = (Datum) 0;
		edge->nulls[i + END_COLUMNS] = true;
	}
	if (changed)
		edges_update(store, edge);
}

/*
 * Have a lasting child, whose alarm is locked, wait for its next round.  Say whether anything
 * has come for that already, so that it has to be considered once this is written; or that
 * the round cannot come, since a parent is no more: lost is its name, if it was removed.  The
 * caller writes the alarm.
 */
NextRound
followers_next_round(Store *store, AlarmRow *alarm, char **lost)
{
	NextRound	round = ROUND_WAITS;
	EdgeScan	scan;
	EdgeRow		edge;

	*lost = NULL;
	ROW_SET(TimestampTz, alarm, alarm_waiting_since, GetCurrentTimestamp());
	ROW_SET_NULL(alarm, alarm_settled_from);
	edges_begin(store, &scan, ROW_GET(Int64, alarm, alarm_id), PG_INT64_MAX, false);
	while (edges_next(&scan, &edge))
	{
		if (!ROW_ISNULL(&edge, edge_next_done_at))
			round = Max(round, ROUND_BEGUN);
		else if (ROW_IS_TRUE(&edge, edge_gone))
		{
			round = Max(round, ROW_ISNULL(&edge, edge_next_status) ? ROUND_OVER : ROUND_LOST);
			if (!ROW_ISNULL(&edge, edge_next_status))
				*lost = TextDatumGetCString(ROW_DATUM(&edge, edge_task_id));
		}
		followers_turn(store, &edge);
	}
	edges_end(&scan);
	CommandCounterIncrement();	/* the edges may go in the same breath */
	return round;
}
