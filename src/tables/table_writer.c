/*-------------------------------------------------------------------------
 *
 * table_writer.c
 *		Writing rows with all their index entries, by direct table access.
 *
 * The executor's way to write one row is to look up and open the indexes,
 * build what it needs to know of each, compile the conditions of the partial
 * ones, and throw all that away behind it.  For one row that is as much work
 * as the entries themselves.  So here all but the relations is kept from one
 * use to the next, across transactions, for as long as the table's relcache
 * entry is valid.  Relations are opened for each use, since a lock and a
 * reference belong to a transaction.
 *
 * What is kept is lent to one user at a time.  A second one, that comes along
 * before the first has closed its table, works with a copy of its own.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/tableam.h"
#include "catalog/pg_am_d.h"
#include "executor/executor.h"
#include "nodes/nodeFuncs.h"
#include "storage/lmgr.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "tables/tables.h"

/* What is kept of a table. */
struct WriterState
{
	MemoryContext context;		/* holds all of this */
	Oid			relid;
	EState	   *estate;
	ResultRelInfo *rri;			/* without relations */
	Oid		   *indexes;		/* ri_NumIndices of them */
	bool		kept;			/* by the cache; else of this one use */
	bool		lent;
};

struct Writer
{
	MemoryContextCallback gone; /* of the context that this is in */
	WriterState *state;
	ResultRelInfo rri;			/* with relations */
};

/*
 * Find out what is needed to write to rel.  Leave the indexes open in the
 * state's rri.
 */
static WriterState *
table_writer_build(Relation rel)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "taskshed writer",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	WriterState *state = palloc0(sizeof(WriterState));

	state->context = context;
	state->relid = RelationGetRelid(rel);
	state->estate = CreateExecutorState();
	state->rri = makeNode(ResultRelInfo);
	InitResultRelInfo(state->rri, rel, 0, NULL, 0);
	ExecOpenIndices(state->rri, true);
	state->indexes = palloc(state->rri->ri_NumIndices * sizeof(Oid));
	for (int i = 0; i < state->rri->ri_NumIndices; i++)
		state->indexes[i] = RelationGetRelid(state->rri->ri_IndexRelationDescs[i]);
	MemoryContextSwitchTo(old);
	return state;
}

/* Return true for check_functions_in_node: any function is one too many. */
static bool
table_writer_any_function(Oid funcid, void *context)
{
	return true;
}

static bool
table_writer_calls_function(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (check_functions_in_node(node, table_writer_any_function, NULL))
		return true;
	return expression_tree_walker(node, table_writer_calls_function, context);
}

/*
 * Return whether that can be kept.  Indexes that somebody has added may have
 * expressions that call functions, which can be replaced; and access methods
 * other than btree may leave something that is good for one use only.
 */
static bool
table_writer_can_keep(const WriterState *state)
{
	for (int i = 0; i < state->rri->ri_NumIndices; i++)
	{
		IndexInfo  *info = state->rri->ri_IndexRelationInfo[i];

		if (state->rri->ri_IndexRelationDescs[i]->rd_rel->relam != BTREE_AM_OID ||
			info->ii_Expressions != NIL ||
			table_writer_calls_function((Node *) info->ii_Predicate, NULL))
			return false;
	}
	return true;
}

/* Give back what was lent, also when its user ends in an error. */
static void
table_writer_give_back(void *arg)
{
	Writer	   *writer = arg;
	WriterState *state = writer->state;

	writer->state = NULL;
	if (state != NULL && state->kept)
		state->lent = false;
	else if (state != NULL)
		MemoryContextDelete(state->context);
}

/*
 * Forget what is kept of a relation, or of any.  The cache's owner must call
 * this whenever a relcache entry is not valid any more.
 */
void
table_writer_invalidate(WriterCache *cache, Oid relid)
{
	WriterState *state = cache->state;
	bool		ours = (relid == InvalidOid || state == NULL || state->relid == relid);

	/* (without a state there may be one in the making) */
	for (int i = 0; !ours && i < state->rri->ri_NumIndices; i++)
		ours = (state->indexes[i] == relid);
	if (ours)
		cache->valid = false;
}

/*
 * Open all indexes of rel, which the caller has locked for writing, and lend
 * what is kept of it.  The result lives in the current memory context.
 */
Writer *
table_writer_open(WriterCache *cache, Relation rel)
{
	WriterState *state = cache->state;
	Writer	   *writer = palloc0(sizeof(Writer));
	ResultRelInfo *rri = &writer->rri;

	if (state != NULL && !state->lent &&
		(!cache->valid || state->relid != RelationGetRelid(rel)))
	{
		MemoryContextDelete(state->context);
		cache->state = state = NULL;
	}

	if (state == NULL || state->lent)
	{
		/* what changes while we look must be able to reset this */
		if (state == NULL)
			cache->valid = true;
		state = table_writer_build(rel);
		*rri = *state->rri;
		MemoryContextSetParent(state->context, CacheMemoryContext);
		if (cache->state == NULL && table_writer_can_keep(state))
		{
			state->kept = true;
			cache->state = state;
		}
	}
	else
	{
		*rri = *state->rri;
		rri->ri_RelationDesc = rel;
		rri->ri_IndexRelationDescs = palloc0(rri->ri_NumIndices * sizeof(Relation));
		for (int i = 0; i < rri->ri_NumIndices; i++)
			rri->ri_IndexRelationDescs[i] = index_open(state->indexes[i], RowExclusiveLock);
	}

	state->lent = true;
	writer->state = state;
	writer->gone.func = table_writer_give_back;
	writer->gone.arg = writer;
	MemoryContextRegisterResetCallback(CurrentMemoryContext, &writer->gone);
	return writer;
}

/*
 * Close and unlock the indexes.  The Writer itself cannot be freed before the
 * memory context that it is in.
 */
void
table_writer_close(Writer *writer)
{
	ExecCloseIndices(&writer->rri);
	table_writer_give_back(writer);
}

/* Insert the row in slot. */
void
table_writer_insert(Writer *writer, TupleTableSlot *slot)
{
	EState	   *estate = writer->state->estate;

	simple_table_tuple_insert(writer->rri.ri_RelationDesc, slot);
	compat_insert_index_tuples(&writer->rri, slot, estate, NULL, NIL);
	ResetPerTupleExprContext(estate);
}

/* Insert the rows in some slots, which costs less than one after the other. */
void
table_writer_insert_many(Writer *writer, TupleTableSlot **slots, int nslots)
{
	EState	   *estate = writer->state->estate;

	table_multi_insert(writer->rri.ri_RelationDesc, slots, nslots, GetCurrentCommandId(true), 0, NULL);
	for (int i = 0; i < nslots; i++)
	{
		compat_insert_index_tuples(&writer->rri, slots[i], estate, NULL, NIL);
		ResetPerTupleExprContext(estate);
	}
}

/* Put the row in slot in place of the one at tid, which the caller has locked. */
void
table_writer_update(Writer *writer, ItemPointer tid, TupleTableSlot *slot)
{
	EState	   *estate = writer->state->estate;

	compat_update_tuple(&writer->rri, tid, slot, estate);
	ResetPerTupleExprContext(estate);
}

/*
 * Insert the row in slot unless a unique index, which that of OID key is, has
 * its key already.  Wait for other transactions that are about to add or to
 * remove that; or unless wait, take it for being there.  Return false if it is, which
 * may be over when the caller looks.  This is what INSERT ... ON CONFLICT does.
 */
bool
table_writer_try_insert(Writer *writer, TupleTableSlot *slot, Oid key, bool wait)
{
	ResultRelInfo *rri = &writer->rri;
	EState	   *estate = writer->state->estate;
	TransactionId xid = GetCurrentTransactionId();
	List	   *arbiters = list_make1_oid(key);
	bool		inserted = false;

	do
	{
		bool		conflict = false;
		uint32		token;

		/* (inserting into the index waits for nobody, but may find less) */
		if (wait && !compat_check_index_constraints(rri, slot, estate, arbiters))
			break;
		token = SpeculativeInsertionLockAcquire(xid);

		table_tuple_insert_speculative(rri->ri_RelationDesc, slot, GetCurrentCommandId(true),
									   0, NULL, token);
		compat_insert_index_tuples(rri, slot, estate, &conflict, arbiters);
		table_tuple_complete_speculative(rri->ri_RelationDesc, slot, token, !conflict);
		SpeculativeInsertionLockRelease(xid);
		inserted = !conflict;
	} while (!inserted && wait);
	ResetPerTupleExprContext(estate);
	return inserted;
}
