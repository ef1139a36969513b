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
 * A lasting child waits again after each run.  What its parents do from when it is due to
 * the end of its run belongs to the next round, and has columns of its own in the edges.
 * When a round is complete waiting.c tells.  That looks at the edges of others as well, so
 * all edges are written before any lasting child is considered.
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

/* Longest result (bytes) that is kept for the tasks that run after another. */
#define MAX_RESULT		(1024 * 1024)

/* How many columns of an edge there are for an end, in edge_columns.h. */
#define END_COLUMNS		(Anum_edge_next_done_at - Anum_edge_done_at)

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

	names->nedges = n;
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
followers_tell_removed(Store *store, const WaitingTask *child, EdgeRow *edge)
{
	bool		waits = !ROW_ISNULL(child->alarm, alarm_waiting_since);
	RunStatus	status = waiting_edge_status(edge);
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
 * in the current memory context, if that was removed.  Set consider if it is to be
 * considered when all have been told.
 */
static bool
followers_tell(Store *store, int64 id, const ParentEnd *end, char **lost, bool *consider)
{
	AlarmRow	alarm;
	TaskRow		task;
	EdgeRow		edge;
	WaitingTask child;
	ParentEnd	told;
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
	child = waiting_task(&alarm, &task);
	waits = !ROW_ISNULL(&alarm, alarm_waiting_since);
	if (end->removed)
	{
		*lost = TextDatumGetCString(ROW_DATUM(&edge, edge_task_id));
		return followers_tell_removed(store, &child, &edge);
	}

	/* one that waits once has what it has waited for, whatever comes then */
	if (!child.lasting && (!waits || waiting_edge_status(&edge) == RUN_SUCCEEDED))
		return false;
	if (end->gone)
		ROW_SET(Bool, &edge, edge_gone, true);

	/*
	 * (where somebody has just given the one away, what it has returned is
	 * not the other's)
	 */
	told = *end;
	if (ROW_GET(ObjectId, &alarm, alarm_owner) != end->owner)
		told.result = told.message = NULL;
	followers_mark(&edge, &told, !waits);
	edges_update(store, &edge);
	if (!waits)
		return false;

	/* is that all that it has waited for? */
	if (child.after == AFTER_FAILED && waiting_is_failure(end->status))
	{
		if (child.lasting)
			child.latest = waiting_latest(store, id, end->run_at);
		waiting_write_due(store, &child);
		return false;
	}
	if (child.after == AFTER_SUCCEEDED && end->gone && end->status != RUN_SUCCEEDED)
		return true;			/* whatever becomes of the others */
	if (!child.lasting)
		return waiting_consider(store, &alarm, &task, false);
	*consider = true;
	return false;
}

/*
 * Tell all that run after a task of its end.  Its alarm is locked, or gone.  Those that end
 * by that, or may, are added to a list for the caller.
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
		char	   *lost = NULL;
		bool		consider = false;
		bool		ends;

		CHECK_FOR_INTERRUPTS();
		MemoryContextSwitchTo(context);
		ends = followers_tell(store, children[i], end, &lost, &consider);
		if (ends || consider)
		{
			FollowerEnd *ending;

			MemoryContextSwitchTo(old);
			ending = palloc0(sizeof(FollowerEnd));
			ending->id = children[i];
			ending->lost = lost == NULL ? NULL : pstrdup(lost);
			ending->skipped = (ends && lost == NULL);
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
